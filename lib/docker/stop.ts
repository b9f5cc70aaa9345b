import type { Color } from "../color.ts";
import { DeadlineError, StopError } from "../errors.ts";
import type { Stack } from "../stack.ts";
import { containerOf, inspectColor, NEVER } from "./container.ts";
import { act, docker, expectSuccess, lastLines } from "./engine.ts";
import { restoreImage } from "./image.ts";

/** Enough, in seconds, to stop a color that never had traffic; one that is still starting may not listen to signals yet. */
export const NEVER_SERVED_GRACE = 3;

/**
 * Spec `stop_container`: stops one color, if it has a container, within `grace` seconds, or the time that Compose gave it.
 * Throws StopError.
 */
export function stopContainer(stack: Stack, color: Color, grace?: number): Promise<void> {
  const within = grace === undefined ? [] : ["--time", String(grace)];
  return quiesce(stack, color, ["stop", ...within]);
}

/** Stops or pauses one color, if it has a container that is not so yet. Throws StopError. */
async function quiesce(stack: Stack, color: Color, command: string[]): Promise<void> {
  const name = containerOf(stack.settings, color);
  let seen: string;
  try {
    const output = await act(stack, [...command, name]);
    if (output.exitCode === 0 || /no such container|already paused/i.test(output.stderr)) return;
    seen = lastLines(output.stdall, 5);
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    seen = error.message;
  }
  throw new StopError(`${name} does not ${command[0]}`, {
    details: seen,
    next: `Stop it by hand: ${stack.settings.dockerCmd} stop ${name}`,
  });
}

/** What `standDown` does to a color, by STANDBY. */
export const STAND_DOWN = { stopped: "stop", paused: "pause" } as const;

/** Spec `stop_container` for a color that a rollback may want back: stops it, or pauses it where STANDBY says so. Throws StopError. */
export const standDown = (stack: Stack, color: Color): Promise<void> =>
  quiesce(stack, color, [STAND_DOWN[stack.settings.standby]]);

/**
 * Takes a release that failed out of a rollback's reach: its container, which stays for its log, will not be started again,
 * and the color's tag goes back. A color that runs is left alone. Throws DockerError.
 */
export async function discardRelease(stack: Stack, color: Color, before: string | undefined): Promise<void> {
  const { status } = await inspectColor(stack, color);
  if (status === "running") return;
  if (status !== "absent") {
    const output = await docker(stack, ["update", "--restart", NEVER, containerOf(stack.settings, color)]);
    expectSuccess(output, `setting ${color} aside`, "Release again before rolling back.");
  }
  await restoreImage(stack, color, before);
}
