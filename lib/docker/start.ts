import type { ProcessOutput } from "zx/core";
import type { Color } from "../color.ts";
import { NothingToRollBackToError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { checkComposeFiles, getHostPort } from "../settings.ts";
import { act, compose, expectSuccess, shellCommand } from "./cli.ts";
import { inspectColor } from "./container.ts";
import { type Image, taggedImage } from "./image.ts";
import { containerOf, imageOf, serviceOf } from "./names.ts";

/** The arguments that recreate a color's container from its image and start it, and nothing else. */
const upArgs = (context: Context, color: Color): string[] =>
  compose(
    context,
    "up",
    ...["-d", "--no-deps", "--no-build", "--pull", "never", "--force-recreate"],
    serviceOf(color),
  );

async function recreateContainer(context: Context, color: Color): Promise<ProcessOutput> {
  checkComposeFiles(context.settings);
  // A paused container cannot react to SIGTERM: replacing it would take its whole grace period.
  if ((await inspectColor(context, color)).status === "paused")
    await act(context, ["unpause", containerOf(context.settings, color)]);
  return act(context, upArgs(context, color));
}

/**
 * Spec `start_container`: starts one color from the image that was just built, and nothing else.
 * Throws DockerError, UsageError, DeadlineError.
 */
export const startContainer = (context: Context, color: Color): Promise<void> =>
  context.change(
    `start ${color}`,
    async () => expectStarted(color, await recreateContainer(context, color)),
    [shellCommand(context, upArgs(context, color))],
  );

const expectStarted = (color: Color, output: ProcessOutput): void =>
  expectSuccess(
    output,
    `starting ${color}`,
    "Fix what Docker reports and run this again; the serving color was not touched.",
  );

/** How a color is started again. */
export interface Restart {
  /**
   * The existing container can be started. Otherwise it is recreated: it is gone, belongs to a failed release, or was made
   * for another port.
   */
  existing: boolean;
  /** It runs already: it still serves its sessions. */
  runs: boolean;
  /** The container runs or is paused, so it still holds its port. */
  holdsPort: boolean;
  args: string[];
  /** The image that the color's tag names. */
  image: Image;
}

/** Decides how to start a color again. Throws NothingToRollBackToError when it has no good build, DockerError. */
export const findRestart = (context: Context, color: Color): Promise<Restart> =>
  context.inspect(`inspect ${color}`, async () => {
    const [{ image, discarded, status, ports }, tagged] = await Promise.all([
      inspectColor(context, color),
      taggedImage(context, color),
    ]);
    if (!tagged) {
      throw new NothingToRollBackToError(
        `There is nothing to roll back to: ${imageOf(context.settings, color)} does not exist`,
        {
          next: "It exists after a second release: npx tsx scripts/deploy-blue-green.mts. The serving color was not touched.",
        },
      );
    }
    const existing =
      image === tagged.id && !discarded && ports.includes(getHostPort(context.settings, color));
    const [runs, paused] = [existing && status === "running", status === "paused"];
    const start = [paused ? "unpause" : "start", containerOf(context.settings, color)];
    const holdsPort = runs || (existing && paused);
    return { existing, runs, holdsPort, args: existing ? start : upArgs(context, color), image: tagged };
  });

/**
 * Spec `start_container`, as a rollback needs it: starts the existing container, or recreates it from its image. It is also
 * recreated when its network is gone, as after `docker network prune`. Throws DockerError, UsageError, DeadlineError.
 */
export const restartContainer = (
  context: Context,
  color: Color,
  { existing, args }: Restart,
): Promise<void> => {
  const restart = async (): Promise<void> => {
    let output = existing ? await act(context, args) : await recreateContainer(context, color);
    if (existing && output.exitCode !== 0 && /network \S+ not found/i.test(output.stderr)) {
      context.log.warn(
        `the network of ${containerOf(context.settings, color)} is gone: recreating the container`,
      );
      output = await recreateContainer(context, color);
    }
    expectStarted(color, output);
  };
  return context.change(`${existing ? "start" : "recreate"} ${color}`, restart, [
    shellCommand(context, args),
  ]);
};
