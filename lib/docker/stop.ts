import type { Color } from "../color.ts";
import { DeadlineError, StopError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { act, docker, expectSuccess, lastLines, shellCommand } from "./cli.ts";
import { inspectColor, NEVER } from "./container.ts";
import { restoreTag } from "./image.ts";
import { containerOf } from "./names.ts";

/** Seconds to stop a color that never had traffic. One that is still starting may not handle SIGTERM yet. */
export const NEVER_SERVED_GRACE = 3;

/**
 * Spec `stop_container`: stops one color, if it has a container, within `grace` seconds, or the time that the compose file
 * gives it. Throws StopError.
 */
export function stopContainer(context: Context, color: Color, grace?: number): Promise<void> {
  const within = grace === undefined ? [] : ["--time", String(grace)];
  return stopOrPause(context, color, "stop", within);
}

/**
 * Spec `stop_container` for a color that a rollback may need: stops it. With STANDBY=paused, pauses it instead, unless it still
 * has open requests, which a paused color would never answer. Throws StopError.
 */
export function putOnStandby(context: Context, color: Color): Promise<void> {
  const { settings, lock } = context;
  const isOpen = lock.recorded().openOn === color;
  return stopOrPause(context, color, settings.standby === "paused" && !isOpen ? "pause" : "stop");
}

function stopOrPause(
  context: Context,
  color: Color,
  command: "stop" | "pause",
  options: readonly string[] = [],
): Promise<void> {
  const name = containerOf(context.settings, color);
  const args = [command, ...options, name];
  const attempt = async (): Promise<void> => {
    let seen: string;
    try {
      const output = await act(context, args);
      if (output.exitCode === 0 || /no such container|already paused/i.test(output.stderr)) return;
      seen = lastLines(output.stdall, 5);
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      seen = error.message;
    }
    throw new StopError(`${name} does not ${command}`, {
      details: seen,
      next: `Stop it by hand: ${context.settings.dockerCmd} stop ${name}`,
    });
  };
  return context.change(`${command} ${color}`, attempt, [shellCommand(context, args)]);
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
      const output = await docker(context, [
        ...["update", "--restart", NEVER],
        containerOf(context.settings, color),
      ]);
      expectSuccess(output, `discarding ${color}`, "Deploy again before you roll back.");
    }
    await restoreTag(context, color, before);
  });
