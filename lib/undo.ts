import type { Active } from "./active.ts";
import type { Color } from "./color.ts";
import { stopContainer } from "./docker.ts";
import { ToolError } from "./errors.ts";
import { drainNginx, switchBack } from "./nginx.ts";
import type { Stack } from "./stack.ts";

/**
 * Takes back what a failed step has made necessary to take back, then throws that step's error.
 * When taking back fails too, throws that failure, which then decides the exit code, with the first one in its details.
 */
export async function undo(error: unknown, takeBack: () => Promise<void>): Promise<never> {
  try {
    await takeBack();
  } catch (worse) {
    const first = error instanceof Error ? error.message : String(error);
    if (worse instanceof ToolError)
      worse.details = `${worse.details}\nIt came while taking this back: ${first}`;
    throw worse;
  }
  throw error;
}

/**
 * Sends the traffic back to the colour it came from, drains the other and stops it.
 * The other keeps running when any of that fails: it may be the only one that serves. Throws what its steps throw.
 */
export async function takeTrafficBack(stack: Stack, from: Active, other: Color): Promise<void> {
  const { log } = stack;
  await log.step(`undo: switch nginx back to ${from.active}`, () => switchBack(stack, from));
  await log.step(`undo: drain ${other}`, () => drainNginx(stack, other));
  await log.step(`undo: stop ${other}`, () => stopContainer(stack, other));
}
