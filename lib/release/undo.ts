import type { Color } from "../color.ts";
import { NEVER_SERVED_GRACE, stopContainer } from "../engine/stop.ts";
import { EXIT, NotBackError, ToolError } from "../errors.ts";
import { drainNginx } from "../nginx/drain.ts";
import { readCanary, readLink } from "../nginx/link.ts";
import { probeLoadedColor, servingColor } from "../nginx/probe.ts";
import { switchBack } from "../nginx/switch.ts";
import { type Context, uninterruptible } from "../run/context.ts";
import type { ActiveState } from "./active.ts";

/** A failure during an undo always needs the owner, whatever it is. */
function undoFailed(worse: unknown, first: string): ToolError {
  const during = `It happened while undoing this failure: ${first}`;
  if (worse instanceof ToolError && worse.exitCode === EXIT.manual) {
    worse.details = `${worse.details}\n${during}`;
    return worse;
  }
  const { message, details, next } =
    worse instanceof ToolError ? worse : { message: String(worse), details: "", next: "" };
  return new NotBackError(`The run could not be undone completely: ${message}`, {
    details: [details, during].filter(Boolean).join("\n"),
    next: `${next} Then run this again: it repairs what is left.`.trim(),
  });
}

/**
 * Undoes what a failed or interrupted step made necessary, then throws that step's error with the undone steps in its
 * details. `act` gets a context whose steps no signal interrupts. If the undo fails too, throws that failure instead, with
 * exit code 3 and the first failure in its details.
 */
export async function undo(
  context: Context,
  error: unknown,
  act: (context: Context) => Promise<void>,
): Promise<never> {
  const undone: string[] = [];
  const inner = uninterruptible(context, "undo: ");
  const change: Context["change"] = async (name, step) => {
    await inner.change(name, step);
    undone.push(name);
  };
  try {
    await act({ ...inner, change });
  } catch (worse) {
    throw undoFailed(worse, error instanceof Error ? error.message : String(error));
  }
  if (error instanceof ToolError)
    error.details = [error.details, `Undo steps: ${undone.join(", ")}.`].filter(Boolean).join("\n");
  throw error;
}

/** Returns false only if nginx and the link agree that this color gets all traffic. */
async function mayBeMoved(context: Context, from: Color): Promise<boolean> {
  const { color, canary } = await probeLoadedColor(context.settings);
  const isLoaded = color === from && !canary;
  return !isLoaded || (await readLink(context)) !== from || (await readCanary(context)) !== undefined;
}

/**
 * Switches back to the color that the run came from, then drains and stops the other, unless it served its own sessions before
 * the run: then it goes on with that. If no traffic was moved yet, only stops it. If any of that fails, or the other serves where nothing did before, it keeps running: it
 * may be the only healthy color. Throws what its steps throw.
 */
export async function takeTrafficBack(
  context: Context,
  from: ActiveState,
  other: Color,
  servedSessions = false,
): Promise<void> {
  if (!from.serves && (await servingColor(context)) === other) {
    throw new NotBackError(
      `Neither color served before; ${other} keeps serving, but is not marked as active`,
      {
        next: "Fix the cause and run this again: the serving color is marked once it is verified in full.",
      },
    );
  }
  if (!(await mayBeMoved(context, from.active))) return stopContainer(context, other, NEVER_SERVED_GRACE);
  await switchBack(context, from, servedSessions ? "sessions" : "nothing");
  if (servedSessions) return;
  await drainNginx(context, other);
  await stopContainer(context, other);
}
