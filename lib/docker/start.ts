import type { ProcessOutput } from "zx/core";
import { type Api, apiSettings } from "../api.ts";
import type { Color } from "../color.ts";
import { NothingToRollBackToError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { checkComposeFiles, getHostPort } from "../settings.ts";
import { apiOfImage, recordApi } from "./apis.ts";
import { ACT_SECONDS, act, compose, docker, expectSuccess, shellCommand } from "./cli.ts";
import { inspectColor } from "./container.ts";
import type { Image } from "./image.ts";
import { containerOf, imageOf, serviceOf } from "./names.ts";

/** The arguments that recreate a color's container from its image and start it, and nothing else. */
const upArgs = (context: Context, color: Color): string[] =>
  compose(
    context,
    "up",
    // Without the last one, a volume of the image would bring files of the previous release along, its code included.
    ...["-d", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", "--renew-anon-volumes"],
    serviceOf(color),
  );

/** Recreates the container of a color for this API, and records that. */
async function recreateContainer(context: Context, color: Color, api: Api): Promise<ProcessOutput> {
  checkComposeFiles(context.settings);
  const { status, anonymousVolumes } = await inspectColor(context, color);
  // A paused container cannot react to SIGTERM: replacing it would take its whole grace period.
  if (status === "paused") await act(context, ["unpause", containerOf(context.settings, color)]);
  const output = await docker(context, upArgs(context, color), {
    deadline: ACT_SECONDS,
    environment: apiSettings(api),
  });
  if (output.exitCode !== 0) return output;
  await recordApi(context, color, api);
  if (anonymousVolumes.length > 0) await act(context, ["volume", "rm", ...anonymousVolumes]); // what fails stays
  return output;
}

/**
 * Spec `start_container`: starts one color from the image that was just built, and nothing else.
 * Throws DockerError, UsageError, DeadlineError, StateFileError.
 */
export const startContainer = (context: Context, color: Color): Promise<void> =>
  context.change(
    `start ${color}`,
    async () => expectStarted(color, await recreateContainer(context, color, context.settings.api)),
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
  /** For a container that is recreated: the API of its image, which may be older than the settings. */
  api: Api;
  args: string[];
  /** The image that it is started from. */
  image: Image;
}

/**
 * Decides how to start a color again from this image, which its tag names before the start. Throws NothingToRollBackToError when
 * there is none, DockerError.
 */
export const findRestart = (context: Context, color: Color, wanted: Image | undefined): Promise<Restart> =>
  context.inspect(`inspect ${color}`, async () => {
    const { image, discarded, status, ports } = await inspectColor(context, color);
    if (!wanted) {
      throw new NothingToRollBackToError(
        `There is nothing to roll back to: ${imageOf(context.settings, color)} does not exist`,
        {
          next: "It exists after a second release: npx tsx scripts/deploy-blue-green.mts. The serving color was not touched.",
        },
      );
    }
    const existing =
      image === wanted.id && !discarded && ports.includes(getHostPort(context.settings, color));
    const [runs, paused] = [existing && status === "running", status === "paused"];
    const start = [paused ? "unpause" : "start", containerOf(context.settings, color)];
    const holdsPort = runs || (existing && paused);
    const api = apiOfImage(context.settings, wanted.id);
    return {
      existing,
      runs,
      holdsPort,
      api,
      args: existing ? start : upArgs(context, color),
      image: wanted,
    };
  });

/**
 * Spec `start_container`, as a rollback needs it: starts the existing container, or recreates it from its image. It is also
 * recreated when its network is gone, as after `docker network prune`. Throws DockerError, UsageError, DeadlineError,
 * StateFileError.
 */
export const restartContainer = (
  context: Context,
  color: Color,
  { existing, args, api }: Restart,
): Promise<void> => {
  const restart = async (): Promise<void> => {
    let output = existing ? await act(context, args) : await recreateContainer(context, color, api);
    if (existing && output.exitCode !== 0 && /network \S+ not found/i.test(output.stderr)) {
      context.log.warn(
        `the network of ${containerOf(context.settings, color)} is gone: recreating the container`,
      );
      output = await recreateContainer(context, color, api);
    }
    expectStarted(color, output);
  };
  return context.change(`${existing ? "start" : "recreate"} ${color}`, restart, [
    shellCommand(context, args),
  ]);
};
