import type { ColorEngine } from "../docker/color-engine.ts";
import { compose } from "../docker/compose.ts";
import type { Context } from "../run/context.ts";
import { swarm } from "../swarm/swarm.ts";

/** The engine that runs the colors, according to ENGINE. */
export const engineOf = ({ settings }: Pick<Context, "settings">): ColorEngine =>
  settings.engine === "swarm" ? swarm : compose;
