import type { Truth } from "./active.ts";
import type { Color } from "./color.ts";
import { stopContainer } from "./docker/stop.ts";
import { EXIT, NotBackError, ToolError } from "./errors.ts";
import { drainNginx } from "./nginx/drain.ts";
import { servingColor } from "./nginx/frontdoor.ts";
import { switchBack } from "./nginx/switch.ts";
import { calm, type Stack } from "./stack.ts";

/** What stands in the way of taking something back always needs an owner's eye, whatever it is. */
function halfDone(worse: unknown, first: string): ToolError {
  const came = `It came while taking this back: ${first}`;
  if (worse instanceof ToolError && worse.exitCode === EXIT.manual) {
    worse.details = `${worse.details}\n${came}`;
    return worse;
  }
  const { message, details, next } =
    worse instanceof ToolError ? worse : { message: String(worse), details: "", next: "" };
  return new NotBackError(`Not all could be taken back: ${message}`, {
    details: [details, came].filter(Boolean).join("\n"),
    next: `${next} Then run this again: it puts right what is half done.`.trim(),
  });
}

/**
 * Takes back what a failed or interrupted step has made necessary to take back, then throws that step's error, with what
 * was taken back in its details. `takeBack` gets a stack whose steps nothing interrupts.
 * When taking back fails too, throws that failure, with exit code 3 and the first one in its details.
 */
export async function undo(
  stack: Stack,
  error: unknown,
  takeBack: (stack: Stack) => Promise<void>,
): Promise<never> {
  const taken: string[] = [];
  const inner = calm(stack, "undo: ");
  const step: Stack["step"] = async (name, act) => {
    await inner.step(name, act);
    taken.push(name);
  };
  try {
    await takeBack({ ...inner, step });
  } catch (worse) {
    throw halfDone(worse, error instanceof Error ? error.message : String(error));
  }
  if (error instanceof ToolError) {
    error.details = [error.details, `Taken back: ${taken.join(", ")}.`].filter(Boolean).join("\n");
  }
  throw error;
}

/**
 * Sends the traffic back to the color it came from, drains the other and stops it. The other keeps running when any of
 * that fails, and when it serves where nothing did before: it may be the only one that can. Throws what its steps throw.
 */
export async function takeTrafficBack(stack: Stack, from: Truth, other: Color): Promise<void> {
  if (!from.serves && (await servingColor(stack)) === other) {
    throw new NotBackError(`Nothing served before, and ${other} serves now: it goes on, not marked`, {
      next: "Mend what failed, then run this again: what serves is marked once it is verified in full.",
    });
  }
  await stack.step(`switch nginx back to ${from.active}`, () => switchBack(stack, from));
  await stack.step(`drain ${other}`, () => drainNginx(stack, other));
  await stack.step(`stop ${other}`, () => stopContainer(stack, other));
}
