import type { Color } from "../color.ts";
import type { Settings } from "../settings.ts";

/** The service of a color, as `docker service ls` shows it. */
export const swarmServiceOf = ({ project }: Pick<Settings, "project">, color: Color): string =>
  `${project}-api-${color}`;

/** The network of the replicas and nginx. */
export const networkOf = ({ project }: Pick<Settings, "project">): string => `${project}-swarm`;

/** The labels of a service: its project, the id of the node that the scripts run on, and the id of its image on that node. */
export const [PROJECT, MANAGER, IMAGE] = ["loop.project", "loop.manager", "loop.image"];

/** The labels of a service whose release has failed, and of one that is on standby with all its replicas. */
export const [DISCARDED, STANDBY] = ["loop.discarded", "loop.standby"];
