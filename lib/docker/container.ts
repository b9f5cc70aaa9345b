import { type Api, apiOf } from "../api.ts";
import { DockerError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { type Infer, z } from "../util/zod.ts";
import { CHECK_DOCKER, docker, dockerFailed } from "./cli.ts";

/** The restart policy that marks the container of a failed release. The image is not enough to recognize it: a release can fail because of its settings. */
export const NEVER = "no";

/** Only the fields in use: --verbose prints the output, and the environment in it may hold secrets. */
const INSPECTED = [
  '{"name":{{json .Name}},"id":{{json .Id}},"pid":{{.State.Pid}},"started":{{json .State.StartedAt}},"image":{{json .Image}},"restarts":{{.RestartCount}},"status":{{json .State.Status}},',
  '"exitCode":{{.State.ExitCode}},"policy":{{json .HostConfig.RestartPolicy.Name}},"labels":{{json .Config.Labels}},',
  '"networks":{{json .NetworkSettings.Networks}},"ports":{{json .HostConfig.PortBindings}},"mounts":{{json .Mounts}}}',
].join("");

const Inspected = z.object({
  name: z.string(),
  id: z.string(),
  pid: z.number(),
  started: z.string(),
  image: z.string(),
  restarts: z.number(),
  status: z.string(),
  exitCode: z.number(),
  policy: z.string(),
  labels: z.record(z.string(), z.string()).nullable(),
  networks: z.record(z.string(), z.object({ IPAddress: z.string() })),
  ports: z
    .record(z.string(), z.array(z.object({ HostIp: z.string(), HostPort: z.string() })).nullable())
    .nullable(),
  mounts: z
    .array(z.object({ Name: z.string().optional(), Source: z.string().optional(), Destination: z.string() }))
    .nullable(),
});

/** A replica of a color in a swarm. */
export interface Replica {
  /** The name of its node; empty while it has none. */
  node: string;
  /** Docker's state of its newest task, such as "running" or "rejected". */
  state: string;
  /** Why it does not run; empty if it does. */
  error: string;
}

/** A container as it is now. `absent`: no container has this name. */
export interface Container {
  status: "absent" | "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** How often the engine restarted it since it was last started. */
  restarts: number;
  exitCode: number;
  id: string;
  /** The pid of its first process on the engine's host; 0 when it does not run. */
  pid: number;
  /** When it was last started, in ms since 1970; NaN for a container that does not exist. */
  startedMs: number;
  /** The id of its image. */
  image: string;
  /** It belongs to a failed release; see `discardRelease`. */
  discarded: boolean;
  /** Its IPv4 addresses, one per network. */
  addresses: string[];
  /** The names of its networks. */
  networks: string[];
  /** The host ports that it was created with. */
  ports: number[];
  /** The host addresses that its ports are published on; an empty one means all. */
  binds: string[];
  /** For the container of a color: how its API is reached, and when it is healthy. */
  api: Api;
  /** Its bind mounts: container path to host path. */
  folders: Readonly<Record<string, string>>;
  /** The volumes that the engine has created for its image's VOLUMEs. */
  anonymousVolumes: string[];
  /** The replicas of a color in a swarm; undefined for a container. */
  replicas?: readonly Replica[];
}

/** The name of a volume that nobody has named. */
const ANONYMOUS = /^[0-9a-f]{64}$/;

const ABSENT: Container = {
  status: "absent",
  restarts: 0,
  exitCode: 0,
  id: "",
  pid: 0,
  startedMs: Number.NaN,
  image: "",
  discarded: false,
  addresses: [],
  networks: [],
  ports: [],
  binds: [],
  api: apiOf({}),
  folders: {},
  anonymousVolumes: [],
};

/**
 * Inspects containers of this project with one command, because each extra command delays a rollback.
 * Throws DockerError when the engine does not answer or a container belongs to another project.
 */
export async function inspectAll<Key extends string>(
  context: Context,
  names: Readonly<Record<Key, string>>,
): Promise<Record<Key, Container>> {
  const asked: [string, string][] = Object.entries(names);
  const output = await docker(context, [
    ...["container", "inspect", "--format", INSPECTED],
    ...asked.map(([, name]) => name),
  ]);
  const lines = output.stdout.split("\n").filter((line) => line !== "");
  const missing = output.stderr.match(/no such container/gi) ?? [];
  if (lines.length + missing.length !== asked.length) {
    throw dockerFailed(output, `inspecting ${Object.values(names).join(" and ")}`, CHECK_DOCKER);
  }
  const found = lines.map((line) => Inspected.parse(JSON.parse(line)));
  const containers = asked.map(([key, name]) => {
    const seen = found.find((one) => one.name === `/${name}`);
    return [key, seen ? ownContainer(context, name, seen) : ABSENT];
  });
  return Object.fromEntries(containers) as Record<Key, Container>;
}

function ownContainer({ settings }: Context, name: string, seen: Infer<typeof Inspected>): Container {
  const owner = seen.labels?.["com.docker.compose.project"];
  if (owner !== settings.project) {
    throw new DockerError(
      `The container ${name} belongs to ${owner ? `the project ${owner}` : "no Compose project"}, not to ${settings.project}`,
      {
        next: `Rename or remove it (${settings.dockerCmd} rename ${name} ${name}-old), or set another COMPOSE_PROJECT_NAME.`,
      },
    );
  }
  const published = Object.values(seen.ports ?? {}).flatMap((bound) => bound ?? []);
  return {
    status: seen.status as Container["status"],
    restarts: seen.restarts,
    exitCode: seen.exitCode,
    id: seen.id,
    pid: seen.pid,
    startedMs: Date.parse(seen.started),
    image: seen.image,
    discarded: seen.policy === NEVER,
    networks: Object.keys(seen.networks),
    addresses: Object.values(seen.networks).map(({ IPAddress }) => IPAddress),
    ports: published.map(({ HostPort }) => Number(HostPort)),
    binds: published.map(({ HostIp }) => HostIp),
    api: apiOf(seen.labels ?? {}, settings.api.idleSeconds),
    folders: Object.fromEntries(
      (seen.mounts ?? []).flatMap(({ Source, Destination }) => (Source ? [[Destination, Source]] : [])),
    ),
    anonymousVolumes: (seen.mounts ?? []).flatMap(({ Name = "" }) => (ANONYMOUS.test(Name) ? [Name] : [])),
  };
}

/** Inspects one container of this project. Throws what `inspectAll` throws. */
export const inspect = async (context: Context, name: string): Promise<Container> =>
  (await inspectAll(context, { it: name })).it;
