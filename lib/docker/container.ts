import { COLORS, type Color } from "../color.ts";
import { DockerError } from "../errors.ts";
import type { Settings } from "../settings.ts";
import type { Stack } from "../stack.ts";
import { type Infer, z } from "../zod.ts";
import { docker, dockerFailed, lastLines } from "./engine.ts";

/** The restart policy of a container that is of a failed release. Only its image would not tell: its settings may be what was bad. */
export const NEVER = "no";

/** The container of a color, as the owner meets it in `docker ps`. */
export const containerOf = ({ project }: Settings, color: Color): string => `${project}-api-${color}`;

/** Only what is used: --verbose shows the output, and the whole of it has the environment in it, with the owner's secrets. */
const INSPECTED = [
  '{"name":{{json .Name}},"id":{{json .Id}},"pid":{{.State.Pid}},"image":{{json .Image}},"restarts":{{.RestartCount}},"status":{{json .State.Status}},',
  '"exitCode":{{.State.ExitCode}},"policy":{{json .HostConfig.RestartPolicy.Name}},"labels":{{json .Config.Labels}},',
  '"networks":{{json .NetworkSettings.Networks}},"ports":{{json .HostConfig.PortBindings}},"mounts":{{json .Mounts}}}',
].join("");

const Inspected = z.object({
  name: z.string(),
  id: z.string(),
  pid: z.number(),
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
  mounts: z.array(z.object({ Source: z.string().optional(), Destination: z.string() })).nullable(),
});

/** A container as it is now. `absent`: there is none of this name. */
export interface Container {
  status: "absent" | "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** How often the engine restarted it by itself since it was last started. */
  restarts: number;
  exitCode: number;
  id: string;
  /** Its first process, as the engine's host counts; 0 when it does not run. */
  pid: number;
  /** The id of the image it was made from. */
  image: string;
  /** It is of a release that failed: see `discardRelease`. */
  discarded: boolean;
  /** Its IPv4 addresses, one a network. */
  addresses: string[];
  /** The host ports that it was made with. */
  ports: number[];
  /** The host addresses that it was made to listen on; an empty one stands for all. */
  binds: string[];
  /** The folders of this host that it has, by where it has them. */
  folders: Readonly<Record<string, string>>;
}

const ABSENT: Container = {
  status: "absent",
  restarts: 0,
  exitCode: 0,
  id: "",
  pid: 0,
  image: "",
  discarded: false,
  addresses: [],
  ports: [],
  binds: [],
  folders: {},
};

/**
 * Looks at containers of this project, with one command: who waits for a rollback waits for each of them.
 * Throws DockerError when the engine does not answer or a name is somebody else's.
 */
export async function inspectAll<Key extends string>(
  stack: Stack,
  names: Readonly<Record<Key, string>>,
): Promise<Record<Key, Container>> {
  const asked: [string, string][] = Object.entries(names);
  const output = await docker(stack, [
    ...["container", "inspect", "--format", INSPECTED],
    ...asked.map(([, name]) => name),
  ]);
  const lines = output.stdout.split("\n").filter((line) => line !== "");
  const missing = output.stderr.match(/no such container/gi) ?? [];
  if (lines.length + missing.length !== asked.length) {
    const doing = `looking at ${Object.values(names).join(" and ")}`;
    throw dockerFailed(output, doing, "See whether Docker is well: docker ps");
  }
  const found = lines.map((line) => Inspected.parse(JSON.parse(line)));
  const containers = asked.map(([key, name]) => {
    const seen = found.find((one) => one.name === `/${name}`);
    return [key, seen ? ownContainer(stack, name, seen) : ABSENT];
  });
  return Object.fromEntries(containers) as Record<Key, Container>;
}

function ownContainer({ settings }: Stack, name: string, seen: Infer<typeof Inspected>): Container {
  const owner = seen.labels?.["com.docker.compose.project"];
  if (owner !== settings.project) {
    throw new DockerError(`The container ${name} is not of this project but of ${owner ?? "none"}`, {
      next: `Rename or remove it (${settings.dockerCmd} rename ${name} ${name}-old), or give this stack another COMPOSE_PROJECT_NAME.`,
    });
  }
  const published = Object.values(seen.ports ?? {}).flatMap((bound) => bound ?? []);
  return {
    status: seen.status as Container["status"],
    restarts: seen.restarts,
    exitCode: seen.exitCode,
    id: seen.id,
    pid: seen.pid,
    image: seen.image,
    discarded: seen.policy === NEVER,
    addresses: Object.values(seen.networks).map(({ IPAddress }) => IPAddress),
    ports: published.map(({ HostPort }) => Number(HostPort)),
    binds: published.map(({ HostIp }) => HostIp),
    folders: Object.fromEntries(
      (seen.mounts ?? []).flatMap(({ Source, Destination }) => (Source ? [[Destination, Source]] : [])),
    ),
  };
}

/** Looks at one container of this project. Throws as `inspectAll`. */
export const inspect = async (stack: Stack, name: string): Promise<Container> =>
  (await inspectAll(stack, { it: name })).it;

/** The container of a color. Throws DockerError when the engine does not answer or the name is somebody else's. */
export const inspectColor = (stack: Stack, color: Color): Promise<Container> =>
  inspect(stack, containerOf(stack.settings, color));

/** What a color's container is to the protocol. */
export type State = "running" | "stopped" | "absent";

/** The state of both containers; one that restarts over and over counts as running, one that is paused does not. Throws DockerError. */
export async function colorStates(stack: Stack): Promise<Record<Color, State>> {
  const { settings } = stack;
  const { blue, green } = await inspectAll(stack, {
    blue: containerOf(settings, "blue"),
    green: containerOf(settings, "green"),
  });
  return { blue: stateOf(blue), green: stateOf(green) };
}

function stateOf({ status }: Container): State {
  if (status === "absent") return "absent";
  return ["running", "restarting"].includes(status) ? "running" : "stopped";
}

/** Which colors run. Throws DockerError. */
export async function runningColors(stack: Stack): Promise<Color[]> {
  const states = await colorStates(stack);
  return COLORS.filter((color) => states[color] === "running");
}

/** The last lines that a color's container logged, as much as can be read. Never throws. */
export async function recentLogs(stack: Stack, color: Color, lines: number): Promise<string> {
  const name = containerOf(stack.settings, color);
  const output = await docker(stack, ["logs", "--tail", String(lines), name]).catch(() => undefined);
  return output ? lastLines(output.stdall, lines) : "its log cannot be read";
}
