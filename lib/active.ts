import { type Color, getActiveColor } from "./color.ts";
import { runningColors } from "./docker.ts";
import { repairLink, servingColor } from "./nginx.ts";
import type { Stack } from "./stack.ts";

/** From which colour a run goes to the other. */
export interface Active {
  active: Color;
  /** Whether it was seen to serve through nginx, so that "it serves again" can be proven. */
  serves: boolean;
}

/**
 * Decides which colour is the active one: the one that nginx serves, else the only one that runs, else the one in the
 * state file. A disagreement with the file is a warning, one with the link is set right. Building over the colour that serves would be an outage.
 * Throws StateFileError, DockerError.
 */
export async function findActive(stack: Stack): Promise<Active> {
  const marked = await getActiveColor(stack.settings.activeColorFile);
  const serving = await servingColor(stack);
  const running = await runningColors(stack);
  const active = serving ?? (running.length === 1 ? running[0] : undefined) ?? marked;
  if (active !== marked) {
    const seen = serving ? "nginx serves" : "the only one that runs is";
    stack.log.warn(`the state file means ${marked}, but ${seen} ${active}: going by that`);
  }
  if (serving !== undefined) await repairLink(stack, serving);
  return { active, serves: serving !== undefined };
}
