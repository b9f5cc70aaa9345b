import { type Api, apiSettings } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import {
  ACT_SECONDS,
  act,
  compose as composeArgs,
  docker,
  expectSuccess,
  type Output,
  shellCommand,
} from "../docker/cli.ts";
import type { ColorEngine } from "../docker/color-engine.ts";
import { compose } from "../docker/compose.ts";
import type { Container } from "../docker/container.ts";
import { taggedImage } from "../docker/image.ts";
import { containerOf, serviceOf } from "../docker/names.ts";
import type { Context } from "../run/context.ts";
import { checkComposeFiles } from "../settings.ts";
import { pollUntil } from "../util/poll.ts";
import { type ComposeService, serviceIn, unsupported } from "./compose-service.ts";
import { checkBuild, imageForNodes, tagLocalName } from "./images.ts";
import { expectManager, nodeId } from "./manager.ts";
import { DISCARDED, IMAGE, MANAGER, networkOf, STANDBY, swarmServiceOf } from "./names.ts";
import { connectArgs, connectNginx } from "./network.ts";
import { asContainer, inspectSwarmServices, lostNodes, type Service } from "./services.ts";
import { creationOf } from "./spec.ts";

/** Did the command fail because there is no such service? */
const isMissing = ({ exitCode, stderr }: Output): boolean =>
  exitCode !== 0 && /no such service|service \S+ not found/i.test(stderr);

const DONE: Output = { exitCode: 0, stdout: "", stderr: "", stdall: "" };

const stopArgs = ({ settings }: Context, color: Color): string[] => [
  ...["service", "scale", "--detach"],
  `${swarmServiceOf(settings, color)}=0`,
];

/** Changes the service of a color, such as its labels. Replicas that stay are not restarted. */
const updateArgs = ({ settings }: Context, color: Color, options: readonly string[]): string[] => [
  ...["service", "update", "--detach", "--no-resolve-image", ...options],
  swarmServiceOf(settings, color),
];

/** Options of `service update` that start a color, or end its standby. */
const startOptions = (replicas: number): string[] => ["--label-rm", STANDBY, "--replicas", String(replicas)];

/** The part of the compose files about a color, for this API. Throws DockerError, UsageError. */
async function composeServiceOf(context: Context, color: Color, api: Api): Promise<ComposeService> {
  checkComposeFiles(context.settings);
  const name = serviceOf(color);
  const output = await docker(context, composeArgs(context, "config", "--format", "json", name), {
    environment: apiSettings(api),
    hideOutput: true,
  });
  expectSuccess(
    output,
    "reading the compose files",
    "Correct the file, or COMPOSE_FILE. Nothing was started.",
  );
  // It doubles each $, so that Compose could read it again.
  return serviceIn(JSON.parse(output.stdout.replaceAll("$$", "$")), name);
}

/** The states of a task that may still answer, or will. */
const ACTIVE = ["preparing", "starting", "running"];

/** The seconds between two looks at tasks that end. Each look is several docker commands, which take CPU time from the API. */
const LOOK_SECONDS = 0.5;

/** Waits until the tasks of a color have ended, so that none answers any more. */
const waitUntilEnded = (context: Context, color: Color, seconds: number): Promise<boolean> => {
  const haveEnded = async (): Promise<boolean> => {
    const { [color]: service } = await inspectSwarmServices(context);
    const left = (service?.replicas ?? []).filter(({ state }) => ACTIVE.includes(state));
    if (left.length === 0) return true;
    const lost = await lostNodes(context);
    return left.every(({ nodeId }) => lost.includes(nodeId));
  };
  return pollUntil(seconds, haveEnded, LOOK_SECONDS);
};

/** Scales the service of a color, if there is one, to 0, and waits until its replicas have ended. Throws DockerError, DeadlineError. */
export async function stopService(context: Context, color: Color): Promise<Output> {
  const output = await act(context, stopArgs(context, color));
  if (output.exitCode !== 0) return isMissing(output) ? DONE : output;
  if (await waitUntilEnded(context, color, ACT_SECONDS)) return DONE;
  return { ...output, exitCode: 1, stdall: `replicas still run after ${ACT_SECONDS} s` };
}

/** A color that Compose still runs, as before the first release with ENGINE=swarm; undefined if it does not run. */
const composed = (color: Color, containers: Record<Color, Container>): Container | undefined =>
  ["running", "restarting", "paused"].includes(containers[color].status) ? containers[color] : undefined;

/**
 * Removes this color's Compose container, if there is one. It has the same DNS name as the service, so nginx would send requests to both.
 * And after a return to ENGINE=compose, a run would read the API from its outdated labels.
 */
async function removeContainer(context: Context, color: Color): Promise<Output> {
  const { [color]: container } = await compose.inspectColors(context);
  if (container.status === "absent") return DONE;
  const stopped = await compose.stop(context, color);
  return stopped.exitCode === 0 ? act(context, ["rm", containerOf(context.settings, color)]) : stopped;
}

/** Each color is a service of a swarm, with REPLICAS replicas. nginx and auth stay containers of Compose on this machine. */
export const swarm: ColorEngine = {
  nameOf: ({ settings }, color) => swarmServiceOf(settings, color),

  inspectColors: async <Key extends string>(context: Context, more = {} as Readonly<Record<Key, string>>) => {
    const [containers, services] = await Promise.all([
      compose.inspectColors<Key>(context, more),
      inspectSwarmServices(context),
    ]);
    const colors = Object.fromEntries(
      COLORS.map((color) => {
        const service: Service | undefined = services[color];
        const old = containers[color];
        return [color, composed(color, containers) ?? (service ? asContainer(context, service) : old)];
      }),
    );
    return { ...containers, ...colors };
  },

  checkPlace: expectManager,
  connect: async (context, { networks }) => {
    const network = networkOf(context.settings);
    if (networks.includes(network)) return;
    await context.change(`connect nginx to ${network}`, () => connectNginx(context), [
      shellCommand(context, connectArgs(context)),
    ]);
  },
  canStart: (_, __, { ports }) => ports.length === 0, // else it is a container of Compose
  start: async (context, color) => {
    const [{ [color]: service }, manager] = await Promise.all([
      inspectSwarmServices(context),
      nodeId(context),
    ]);
    // `docker image prune --all` removes the local name, and a killed run of an older version may have moved it.
    if (service) await tagLocalName(context, service.image, service.labels[IMAGE] ?? "");
    // A color that runs still serves sessions: with fewer replicas, some of them would end.
    const count = Math.max(context.settings.replicas, service?.wanted ?? 0);
    // The label is missing if a run was killed right after it created the service.
    return act(
      context,
      updateArgs(context, color, ["--label-add", `${MANAGER}=${manager}`, ...startOptions(count)]),
    );
  },
  startCommand: (context, color) =>
    shellCommand(context, updateArgs(context, color, startOptions(context.settings.replicas))),

  checkBuild,
  recreate: async (context, color, _, api) => {
    const service = await composeServiceOf(context, color, api);
    const ignored = unsupported(service);
    if (ignored.length > 0)
      context.log.warn(
        `not supported in a swarm, so left out of the service of ${color}: ${ignored.join(", ")}`,
      );
    const [{ image, id }, manager] = await Promise.all([imageForNodes(context, color), nodeId(context)]);
    const old = await removeContainer(context, color);
    if (old.exitCode !== 0) return old;
    const stopped = await stopService(context, color); // else replicas of the old one would answer for a while
    if (stopped.exitCode !== 0) return stopped;
    const removed = await act(context, ["service", "rm", swarmServiceOf(context.settings, color)]);
    if (removed.exitCode !== 0 && !isMissing(removed)) return removed;
    // Not before: replicas of the old service that Docker replaces, as after a power failure, would run the new image.
    await tagLocalName(context, image, id);
    const { args, environment } = creationOf(context.settings, color, service, image, id);
    const created = await docker(context, args, { deadline: ACT_SECONDS, environment });
    if (created.exitCode !== 0) return created;
    // The first `service update` reorders mounts and other lists, which restarts running replicas. So it runs while there are none.
    return act(
      context,
      updateArgs(context, color, [
        ...["--label-add", `${MANAGER}=${manager}`],
        ...["--replicas", String(context.settings.replicas)],
      ]),
    );
  },
  recreateCommand: (context, color) =>
    shellCommand(context, ["service", "create", "--name", swarmServiceOf(context.settings, color), "…"]),

  stop: async (context, color, grace) => {
    const container = await compose.stop(context, color, grace);
    if (container.exitCode !== 0 && !/no such container/i.test(container.stderr)) return container;
    return stopService(context, color);
  },
  stopCommand: (context, color) => shellCommand(context, stopArgs(context, color)),
  // Its replicas stay up. A container of Compose is stopped: the next start makes a service of it.
  pause: async (context, color) => {
    const { [color]: container } = await compose.inspectColors(context);
    if (container.status === "running") return compose.stop(context, color);
    const output = await act(context, updateArgs(context, color, ["--label-add", `${STANDBY}=yes`]));
    return isMissing(output) ? DONE : output;
  },
  pauseCommand: (context, color) => `keep the replicas of ${swarmServiceOf(context.settings, color)}`,
  discard: async (context, color) => {
    const [{ [color]: service }, tagged] = await Promise.all([
      inspectSwarmServices(context),
      taggedImage(context, color),
    ]);
    // The release failed before it changed the service, for example because its image could not be pushed: a rollback can still start the service.
    if (service && tagged && service.labels[IMAGE] !== tagged.id) return DONE;
    const output = await act(context, updateArgs(context, color, ["--label-add", `${DISCARDED}=yes`]));
    // Without a service, the color is a Compose container: no release has made it a service yet, or a run was killed before it did.
    return isMissing(output) ? compose.discard(context, color) : output;
  },

  logsArgs: ({ settings }, color, lines) => [
    ...["service", "logs", "--raw", "--tail", String(lines)],
    swarmServiceOf(settings, color),
  ],

  portOf: () => undefined,
  probe: async (context, color, api, timeout) => {
    try {
      const { [color]: service } = await inspectSwarmServices(context);
      if (!service?.wanted) {
        // Probe the port only if the color's container runs: otherwise, another program may listen there.
        const { [color]: container } = await compose.inspectColors(context);
        if (container.status === "running") return compose.probe(context, color, api, timeout);
        return { healthy: false, finding: "no replica runs" };
      }
      const running = service.replicas.filter(({ state, address }) => state === "running" && address);
      const addresses = running.map(({ address = "" }) => address);
      const failed = running.length < service.wanted ? service.lastFailure : undefined;
      const why = failed ? [`${failed.node || "no node"}: ${failed.error}`] : [];
      const finding = [`${running.length} of ${service.wanted} replicas run`, ...why].join("; ");
      return { healthy: running.length === service.wanted, finding, addresses };
    } catch (error) {
      return { healthy: false, finding: error instanceof Error ? error.message : String(error) };
    }
  },
  probeCommand: ({ settings }, color) => `count the running replicas of ${swarmServiceOf(settings, color)}`,
};
