import type { Color } from "../color.ts";
import type { Stack } from "../stack.ts";
import { containerOf } from "./container.ts";
import { typed } from "./engine.ts";
import { buildArgs, pruneArgs } from "./image.ts";
import { upArgs } from "./start.ts";
import { STAND_DOWN } from "./stop.ts";

/** The commands of the acts that bring one color up and the other down, for a dry run to tell. */
export const dockerCommands = (stack: Stack, from: Color, to: Color) => ({
  build: [typed(stack, buildArgs(stack, to))],
  start: [typed(stack, upArgs(stack, to))],
  standDown: [typed(stack, [STAND_DOWN[stack.settings.standby], containerOf(stack.settings, from)])],
  prune: [typed(stack, pruneArgs(stack))],
});
