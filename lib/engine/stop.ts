import type { Color } from "../color.ts";
import { expectSuccess, lastLines, type Output } from "../docker/cli.ts";
import { restoreTag } from "../docker/image.ts";
import { InterruptedError, StopError, ToolError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { inspectColor } from "./colors.ts";
import { engineOf } from "./engine.ts";

/** Seconds to stop a color that never had traffic. One that is still starting may not handle SIGTERM yet. */
export const NEVER_SERVED_GRACE = 3;

/**
 * Spec `stop_container`: stops one color, if it has a container, within `grace` seconds, or the time that the compose file
 * gives it. Throws StopError.
 */
export function stopContainer(context: Context, color: Color, grace?: number): Promise<void> {
  const engine = engineOf(context);
  return context.change(
    `stop ${color}`,
    () => end(context, color, "stop", engine.stop(context, color, grace)),
    [engine.stopCommand(context, color, grace)],
  );
}

/**
 * Spec `stop_container` for a color that a rollback may need: stops it. With STANDBY=paused, pauses it instead, unless it still
 * has open requests, which a paused color would never answer. Throws StopError.
 */
export function putOnStandby(context: Context, color: Color): Promise<void> {
  const { settings, lock } = context;
  const engine = engineOf(context);
  if (settings.standby !== "paused" || lock.recorded().openOn === color) return stopContainer(context, color);
  return context.change(`pause ${color}`, () => end(context, color, "pause", engine.pause(context, color)), [
    engine.pauseCommand(context, color),
  ]);
}

/** Throws StopError unless the color ends, or has ended before. */
async function end(
  context: Context,
  color: Color,
  how: "stop" | "pause",
  ending: Promise<Output>,
): Promise<void> {
  const engine = engineOf(context);
  let seen: string;
  try {
    const output = await ending;
    if (output.exitCode === 0 || /no such container|already paused/i.test(output.stderr)) return;
    seen = lastLines(output.stdall, 5);
  } catch (error) {
    if (!(error instanceof ToolError) || error instanceof InterruptedError) throw error;
    seen = error.message;
  }
  throw new StopError(`${engine.nameOf(context, color)} does not ${how}`, {
    details: seen,
    next: `Stop it by hand: ${engine.stopCommand(context, color)}`,
  });
}

/**
 * Makes sure that no rollback starts a failed release: its container, kept for its log, is never started again, and the
 * color's tag returns to the image of `before`. A color that runs is left alone. Throws DockerError.
 */
export const discardRelease = (context: Context, color: Color, before: string | undefined): Promise<void> =>
  context.change(`restore the previous image of ${color}`, async () => {
    const { status } = await inspectColor(context, color);
    if (status === "running") return;
    if (status !== "absent") {
      const output = await engineOf(context).discard(context, color);
      expectSuccess(output, `discarding ${color}`, "Deploy again before you roll back.");
    }
    await restoreTag(context, color, before);
  });
