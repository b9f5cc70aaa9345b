import type { Api } from "../api.ts";
import type { Color } from "../color.ts";
import { expectSuccess, type Output } from "../docker/cli.ts";
import type { Container } from "../docker/container.ts";
import type { Image } from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import { NothingToRollBackToError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { networkOf } from "../swarm/names.ts";
import { stopService, swarm } from "../swarm/swarm.ts";
import { apiOfImage, recordApi } from "./apis.ts";
import { inspectColor } from "./colors.ts";
import { engineOf } from "./engine.ts";

/**
 * Inspects a color before it is recreated. After a change from ENGINE=swarm back to compose, first stops its replicas, which may still
 * serve sessions: nginx would send requests to both. Throws DockerError.
 */
async function aloneInspected(context: Context, color: Color): Promise<Container> {
  const engine = engineOf(context);
  const names = { nginx: context.settings.nginxContainer };
  const { nginx, [color]: container } = await engine.inspectColors(context, names);
  if (engine !== swarm && nginx.networks.includes(networkOf(context.settings))) {
    const output = await stopService(context, color);
    if (/not a swarm manager/i.test(output.stderr)) return container; // it has left the swarm
    expectSuccess(
      output,
      `stopping the replicas of ${color}`,
      `Stop them by hand: ${swarm.stopCommand(context, color)}`,
    );
  }
  return container;
}

/** Recreates a color for this API, and records that. */
async function recreate(context: Context, color: Color, api: Api): Promise<Output> {
  const output = await engineOf(context).recreate(context, color, await aloneInspected(context, color), api);
  if (output.exitCode === 0) await recordApi(context, color, api);
  return output;
}

/**
 * Spec `start_container`: starts one color from the image that was just built, and nothing else.
 * Throws DockerError, UsageError, DeadlineError, StateFileError.
 */
export const startContainer = (context: Context, color: Color): Promise<void> =>
  context.change(
    `start ${color}`,
    async () => expectStarted(color, await recreate(context, color, context.settings.api)),
    [engineOf(context).recreateCommand(context, color)],
  );

const expectStarted = (color: Color, output: Output): void =>
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
  container: Container;
  /** It runs already: it still serves its sessions. */
  runs: boolean;
  /** The container runs or is paused, so it still holds its port. */
  holdsPort: boolean;
  /** For a container that is recreated: the API of its image, which may be older than the settings. */
  api: Api;
  /** What an owner would type. */
  command: string;
  /** The image that it is started from. */
  image: Image;
}

/**
 * Decides how to start a color again from this image, which its tag names before the start. Throws NothingToRollBackToError when
 * there is none, DockerError.
 */
export const findRestart = (context: Context, color: Color, wanted: Image | undefined): Promise<Restart> =>
  context.inspect(`inspect ${color}`, async () => {
    const engine = engineOf(context);
    const container = await inspectColor(context, color);
    const { image, discarded, status } = container;
    if (!wanted) {
      throw new NothingToRollBackToError(
        `There is nothing to roll back to: ${imageOf(context.settings, color)} does not exist`,
        {
          next: "It exists after a second release: npx tsx scripts/deploy-blue-green.mts. The serving color was not touched.",
        },
      );
    }
    const existing = image === wanted.id && !discarded && engine.canStart(context, color, container);
    const runs = existing && status === "running";
    const holdsPort = runs || (existing && status === "paused");
    const api = apiOfImage(context.settings, wanted.id);
    return {
      existing,
      container,
      runs,
      holdsPort,
      api,
      command: existing
        ? engine.startCommand(context, color, container)
        : engine.recreateCommand(context, color),
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
  { existing, container, command, api }: Restart,
): Promise<void> => {
  const engine = engineOf(context);
  const restart = async (): Promise<void> => {
    let output = existing
      ? await engine.start(context, color, container)
      : await recreate(context, color, api);
    if (existing && output.exitCode !== 0 && /network \S+ not found/i.test(output.stderr)) {
      context.log.warn(`the network of ${engine.nameOf(context, color)} is gone: recreating the container`);
      output = await recreate(context, color, api);
    }
    expectStarted(color, output);
  };
  return context.change(`${existing ? "start" : "recreate"} ${color}`, restart, [command]);
};
