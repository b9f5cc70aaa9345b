import { apiOf } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import { CHECK_DOCKER, docker, dockerFailed, expectSuccess, type Output } from "../docker/cli.ts";
import type { Container, Replica } from "../docker/container.ts";
import { DockerError, UsageError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { type Infer, z } from "../util/zod.ts";
import { DISCARDED, IMAGE, networkOf, PROJECT, STANDBY, swarmServiceOf } from "./names.ts";

/** Only the fields in use: --verbose prints the output, and the environment in it may hold secrets. */
const SERVICE_FORMAT = [
  '{"name":{{json .Spec.Name}},"id":{{json .ID}},"updated":{{json .UpdatedAt}},"labels":{{json .Spec.Labels}},',
  '"mode":{{json .Spec.Mode}},"image":{{json .Spec.TaskTemplate.ContainerSpec.Image}},"mounts":{{json .Spec.TaskTemplate.ContainerSpec.Mounts}}}',
].join("");

const InspectedService = z.object({
  name: z.string(),
  id: z.string(),
  updated: z.string(),
  labels: z.record(z.string(), z.string()).nullable(),
  mode: z.object({ Replicated: z.object({ Replicas: z.number() }).optional() }),
  image: z.string(),
  mounts: z.array(z.object({ Source: z.string().optional(), Target: z.string() })).nullable(),
});
export type InspectedService = Infer<typeof InspectedService>;

const TASK_FORMAT = [
  '{"id":{{json .ID}},"service":{{json .ServiceID}},"nodeId":{{json .NodeID}},"slot":{{json .Slot}},"wanted":{{json .DesiredState}},',
  '"state":{{json .Status.State}},"since":{{json .Status.Timestamp}},"error":{{json .Status.Err}},',
  '"container":{{json .Status.ContainerStatus}},"networks":{{json .NetworksAttachments}}}',
].join("");

const InspectedTask = z.object({
  id: z.string(),
  service: z.string(),
  nodeId: z.string(),
  slot: z.number(),
  wanted: z.string(),
  state: z.string(),
  since: z.string(),
  error: z.string(),
  container: z.object({ ExitCode: z.number().optional() }).nullable(),
  networks: z
    .array(
      z.object({
        Network: z.object({ Spec: z.object({ Name: z.string() }) }),
        Addresses: z.array(z.string()).nullish(),
      }),
    )
    .nullable(),
});

/** A task, and the name of its node. */
export type Task = Infer<typeof InspectedTask> & { node: string };

/** A replica, from the newest task of its slot. */
export interface ServiceReplica extends Replica {
  /** Does Docker want it to run? Otherwise it is being stopped, or was stopped. */
  wanted: boolean;
  exitCode: number;
  /** Its address in the network of the replicas; undefined while it has none. */
  address: string | undefined;
  /** Its node; empty while it has none. A node that left and joined again has another id, and the same name. */
  nodeId: string;
  /** When it came into its state, in ms since 1970. */
  sinceMs: number;
}

/** The service of a color. */
export interface Service {
  id: string;
  /** The name by which the nodes pull its image. */
  image: string;
  updatedMs: number;
  labels: Readonly<Record<string, string>>;
  /** How many replicas it should have. */
  wanted: number;
  replicas: readonly ServiceReplica[];
  /** How many of its known tasks have failed. */
  failures: number;
  /** The newest failure of a task, and its node. */
  lastFailure: Replica | undefined;
  /** Its mounts: container path to host path. */
  folders: Readonly<Record<string, string>>;
}

const parseLines = (text: string): unknown[] =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

/** The services of both colors; undefined for a color without one. Throws DockerError. */
export async function inspectSwarmServices(context: Context): Promise<Record<Color, Service | undefined>> {
  const { settings } = context;
  const names = COLORS.map((color) => swarmServiceOf(settings, color));
  const [services, tasks] = await Promise.all([
    docker(context, ["service", "inspect", "--format", SERVICE_FORMAT, ...names]),
    inspectTasks(context, names),
  ]);
  expectManager(context, services);
  const found = parseLines(services.stdout).map((line) => InspectedService.parse(line));
  const missing = services.stderr.match(/no such service/gi) ?? [];
  if (found.length + missing.length !== names.length)
    throw dockerFailed(services, `inspecting ${names.join(" and ")}`, CHECK_DOCKER);
  const of = (color: Color): Service | undefined => {
    const service = found.find(({ name }) => name === swarmServiceOf(settings, color));
    return service && serviceFrom(context, service, tasks);
  };
  return { blue: of("blue"), green: of("green") };
}

/** Throws UsageError if the engine is no manager of a swarm. */
function expectManager({ settings }: Context, { stderr }: Output): void {
  if (!/not a swarm manager/i.test(stderr)) return;
  throw new UsageError("ENGINE is swarm, but this machine is not a manager of a swarm", {
    details: stderr.trim(),
    next: `Run this on a manager. If there is no swarm yet, create one: ${settings.dockerCmd} swarm init. Or set ENGINE=compose.`,
  });
}

/** The ids of the nodes that do not answer: what is known of their tasks does not change any more. Throws DockerError. */
export async function lostNodes(context: Context): Promise<string[]> {
  const output = await docker(context, ["node", "ls", "--format", "{{.Status}} {{.ID}}"]);
  expectSuccess(output, "listing the nodes", CHECK_DOCKER);
  return [...output.stdout.matchAll(/^Down (\S+)/gm)].map(([, id = ""]) => id);
}

/** The tasks of these services. */
async function inspectTasks(context: Context, names: readonly string[]): Promise<Task[]> {
  // It lists the tasks of those that exist, and fails if one does not.
  const list = await docker(context, [
    "service",
    "ps",
    "--no-trunc",
    "--format",
    "{{.ID}} {{.Node}}",
    ...names,
  ]);
  if (!/no such service|service \S+ not found|not a swarm manager/i.test(list.stderr))
    expectSuccess(list, `listing the replicas of ${names.join(" and ")}`, CHECK_DOCKER);
  const nodes = new Map(
    [...list.stdout.matchAll(/^(\S+) (.*)$/gm)].map(([, id = "", node = ""]) => [id, node]),
  );
  if (nodes.size === 0) return [];
  const output = await docker(context, [
    "inspect",
    "--type",
    "task",
    "--format",
    TASK_FORMAT,
    ...nodes.keys(),
  ]);
  // A task that was removed in between is missing; anything else is an error.
  if (output.exitCode !== 0 && !/no such|not found/i.test(output.stderr))
    throw dockerFailed(output, "inspecting the replicas", CHECK_DOCKER);
  return parseLines(output.stdout)
    .map((line) => InspectedTask.parse(line))
    .map((task) => ({ ...task, node: nodes.get(task.id) ?? "" }));
}

/** Task states that Docker does not leave by itself, other than by a replacement. */
const FAILED = ["failed", "rejected", "orphaned"];

/** A service from what Docker says of it, and of the tasks of several services. Throws DockerError if it belongs to another project. */
export function serviceFrom(
  { settings }: Pick<Context, "settings">,
  inspected: InspectedService,
  tasks: readonly Task[],
): Service {
  const { name, id, updated, labels, mode, image, mounts } = inspected;
  if (labels?.[PROJECT] !== settings.project || !mode.Replicated)
    throw new DockerError(`The service ${name} does not belong to the project ${settings.project}`, {
      next: `Remove it (${settings.dockerCmd} service rm ${name}), or set another COMPOSE_PROJECT_NAME.`,
    });
  const own = tasks.filter(({ service }) => service === id);
  return {
    id,
    image,
    updatedMs: Date.parse(updated),
    labels: labels ?? {},
    wanted: mode.Replicated.Replicas,
    replicas: newestPerSlot(own).map((task) => ({
      node: task.node,
      state: task.state,
      error: task.error,
      wanted: !["shutdown", "remove"].includes(task.wanted),
      nodeId: task.nodeId,
      exitCode: task.container?.ExitCode ?? 0,
      sinceMs: Date.parse(task.since),
      address: task.networks
        ?.find(({ Network }) => Network.Spec.Name === networkOf(settings))
        ?.Addresses?.[0]?.replace(/\/\d+$/, ""),
    })),
    failures: own.filter(({ state }) => FAILED.includes(state)).length,
    lastFailure: own
      .toSorted((a, b) => Date.parse(a.since) - Date.parse(b.since))
      .findLast(({ error }) => error !== ""),
    folders: Object.fromEntries(
      (mounts ?? []).flatMap(({ Source, Target }) => (Source ? [[Target, Source]] : [])),
    ),
  };
}

/** Of each slot, the task that Docker wants to run; without one, the newest. */
function newestPerSlot(tasks: readonly Task[]): Task[] {
  const slots = new Map<number, Task>();
  const byAge = tasks.toSorted((a, b) => Date.parse(a.since) - Date.parse(b.since));
  for (const task of byAge) {
    const before = slots.get(task.slot);
    if (!before || task.wanted === "running" || before.wanted !== "running") slots.set(task.slot, task);
  }
  return [...slots.values()];
}

function statusOf({ wanted, labels }: Service, running: number): Container["status"] {
  if (wanted === 0) return "exited";
  if (labels[STANDBY] !== undefined) return "paused";
  return running > 0 ? "running" : "restarting";
}

/** A service as release logic sees a color. It counts as running as long as it should have replicas, unless it is on standby. */
export function asContainer({ settings }: Pick<Context, "settings">, service: Service): Container {
  const running = service.replicas.filter(({ state }) => state === "running");
  const last = service.replicas.toSorted((a, b) => a.sinceMs - b.sinceMs).at(-1);
  return {
    status: statusOf(service, running.length),
    restarts: Math.floor(service.failures / Math.max(1, service.wanted)), // per replica, as for a container
    exitCode: last?.exitCode ?? 0,
    id: service.id,
    pid: 0, // perhaps on another machine
    startedMs: Math.min(
      ...running.map(({ sinceMs }) => sinceMs),
      ...(running.length > 0 ? [] : [service.updatedMs]),
    ),
    image: service.labels[IMAGE] ?? "",
    discarded: service.labels[DISCARDED] !== undefined,
    addresses: running.flatMap(({ address }) => address ?? []),
    networks: [networkOf(settings)],
    ports: [],
    binds: [],
    api: apiOf(service.labels, settings.api.idleSeconds),
    folders: service.folders,
    anonymousVolumes: [],
    replicas: service.replicas
      .filter(({ wanted }) => wanted)
      .map(({ node, state, error }) => ({ node, state, error })),
  };
}
