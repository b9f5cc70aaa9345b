import type { Color } from "../color.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";

/** The container of a color, as `docker ps` shows it. */
export const containerOf = ({ project }: Settings, color: Color): string => `${project}-api-${color}`;

/** The repository of this stack's images, on this machine only. */
export const repositoryOfStack = ({ project }: Settings): string => `${project}-api`;

/** The image of a color. Each color keeps its own build, so that a rollback needs none. */
export const imageOf = (settings: Settings, color: Color): string =>
  `${repositoryOfStack(settings)}:${color}`;

/** The Compose service of a color; nginx's upstreams use the same name. */
export const serviceOf = (color: Color): string => `loop-api-${color}`;

/** Docker's filter for this Compose project, so that nothing of another project is touched. */
export const oursOnly = ({ settings }: Context): string =>
  `label=com.docker.compose.project=${settings.project}`;

/** The container of auth. */
export const authOf = ({ settings }: Context): string => `${settings.project}-auth`;
