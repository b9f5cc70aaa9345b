import type { ProcessOutput } from "zx/core";
import type { Color } from "../color.ts";
import { NothingToRollBackToError } from "../errors.ts";
import { checkComposeFiles, getHostPort } from "../settings.ts";
import type { Stack } from "../stack.ts";
import { containerOf, inspectColor } from "./container.ts";
import { act, compose, expectSuccess, serviceOf, typed } from "./engine.ts";
import { imageOf, taggedImage } from "./image.ts";

/** The arguments that make a color's container anew from its image, and start it and nothing else. */
export const upArgs = (stack: Stack, color: Color): string[] =>
  compose(
    stack,
    "up",
    ...["-d", "--no-deps", "--no-build", "--pull", "never", "--force-recreate"],
    serviceOf(color),
  );

/** Makes a color's container anew from its image, and starts it and nothing else. Throws UsageError, DeadlineError. */
async function upAnew(stack: Stack, color: Color): Promise<ProcessOutput> {
  checkComposeFiles(stack.settings);
  // A paused one does not hear that it is to stop: replacing it would take its whole grace period.
  if ((await inspectColor(stack, color)).status === "paused")
    await act(stack, ["unpause", containerOf(stack.settings, color)]);
  return act(stack, upArgs(stack, color));
}

/** Spec `start_container`: starts one color from the image just built, and nothing else. Throws DockerError. */
export const startContainer = async (stack: Stack, color: Color): Promise<void> =>
  expectStarted(color, await upAnew(stack, color));

const expectStarted = (color: Color, output: ProcessOutput): void =>
  expectSuccess(
    output,
    `starting ${color}`,
    "Mend what Docker says and run this again; nothing that serves was touched.",
  );

/** How a color is started again. */
export interface Restart {
  /** The container as it was left, paused or stopped; else a new one, where it is gone, of a release that failed or made for another port. */
  asLeft: boolean;
  /** It is paused, and so has its port still. */
  hasPort: boolean;
  args: string[];
  /** The same as an owner could type it, for a dry run to tell. */
  command: string;
}

/** Finds out how a color is started again. Throws NothingToRollBackToError when it has no good build, DockerError. */
export async function findRestart(stack: Stack, color: Color): Promise<Restart> {
  const [{ image, discarded, status, ports }, tagged] = await Promise.all([
    inspectColor(stack, color),
    taggedImage(stack, color),
  ]);
  if (!tagged) {
    throw new NothingToRollBackToError(
      `There is nothing to roll back to: no image ${imageOf(stack.settings, color)} of a good build`,
      {
        next: "It is there after a second release: npx tsx scripts/deploy-blue-green.mts. What serves was not touched.",
      },
    );
  }
  const asLeft = image === tagged.id && !discarded && ports.includes(getHostPort(stack.settings, color));
  const paused = status === "paused";
  const again = [paused ? "unpause" : "start", containerOf(stack.settings, color)];
  const args = asLeft ? again : upArgs(stack, color);
  return { asLeft, hasPort: asLeft && paused, args, command: typed(stack, args) };
}

/**
 * Spec `start_container` as a rollback needs it: the container that was left, or a new one, also where the network that it
 * was made for is gone, as after a `docker network prune`. Throws DockerError.
 */
export async function restartContainer(stack: Stack, color: Color, { asLeft, args }: Restart): Promise<void> {
  let output = asLeft ? await act(stack, args) : await upAnew(stack, color);
  if (asLeft && output.exitCode !== 0 && /network \S+ not found/i.test(output.stderr)) {
    stack.log.warn(
      `the network that ${containerOf(stack.settings, color)} was made for is gone: making it anew`,
    );
    output = await upAnew(stack, color);
  }
  expectStarted(color, output);
}
