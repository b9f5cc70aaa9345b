import type { ProcessOutput } from "zx/core";
import { COLORS, type Color } from "../color.ts";
import { DeadlineError, DockerError, NothingToRollBackToError, StopError } from "../errors.ts";
import { getHostPort, type Settings } from "../settings.ts";
import type { Stack } from "../stack.ts";
import { type Infer, z } from "../zod.ts";
import { act, compose, docker, dockerFailed, expectSuccess, lastLines, serviceOf, typed } from "./engine.ts";
import { imageOf, restoreImage, taggedImage } from "./image.ts";

/** The restart policy of a container that is of a failed release. Only its image would not tell: its settings may be what was bad. */
const NEVER = "no";

/** Enough, in seconds, to stop a colour that never had traffic; one that is still starting may not listen to signals yet. */
export const NEVER_SERVED_GRACE = 3;

/** The container of a colour, as the owner meets it in `docker ps`. */
export const containerOf = ({ project }: Settings, color: Color): string => `${project}-api-${color}`;

/** Only what is used: --verbose shows the output, and the whole of it has the environment in it, with the owner's secrets. */
const INSPECTED = [
  '{"name":{{json .Name}},"image":{{json .Image}},"restarts":{{.RestartCount}},"status":{{json .State.Status}},',
  '"exitCode":{{.State.ExitCode}},"policy":{{json .HostConfig.RestartPolicy.Name}},"labels":{{json .Config.Labels}},',
  '"networks":{{json .NetworkSettings.Networks}},"ports":{{json .HostConfig.PortBindings}}}',
].join("");

const Inspected = z.object({
  name: z.string(),
  image: z.string(),
  restarts: z.number(),
  status: z.string(),
  exitCode: z.number(),
  policy: z.string(),
  labels: z.record(z.string(), z.string()).nullable(),
  networks: z.record(z.string(), z.object({ IPAddress: z.string() })),
  ports: z.record(z.string(), z.array(z.object({ HostPort: z.string() })).nullable()).nullable(),
});

/** A container as it is now. `absent`: there is none of this name. */
export interface Container {
  status: "absent" | "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** How often the engine restarted it by itself since it was last started. */
  restarts: number;
  exitCode: number;
  /** The id of the image it was made from. */
  image: string;
  /** It is of a release that failed: see `discardRelease`. */
  discarded: boolean;
  /** Its IPv4 addresses, one a network. */
  addresses: string[];
  /** The host ports that it was made with. */
  ports: number[];
}

const ABSENT: Container = {
  status: "absent",
  restarts: 0,
  exitCode: 0,
  image: "",
  discarded: false,
  addresses: [],
  ports: [],
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
  return {
    status: seen.status as Container["status"],
    restarts: seen.restarts,
    exitCode: seen.exitCode,
    image: seen.image,
    discarded: seen.policy === NEVER,
    addresses: Object.values(seen.networks).map(({ IPAddress }) => IPAddress),
    ports: Object.values(seen.ports ?? {}).flatMap((bound) =>
      (bound ?? []).map(({ HostPort }) => Number(HostPort)),
    ),
  };
}

/** Looks at one container of this project. Throws as `inspectAll`. */
export const inspect = async (stack: Stack, name: string): Promise<Container> =>
  (await inspectAll(stack, { it: name })).it;

/** The container of a colour. Throws DockerError when the engine does not answer or the name is somebody else's. */
export const inspectColor = (stack: Stack, color: Color): Promise<Container> =>
  inspect(stack, containerOf(stack.settings, color));

/** What a colour's container is to the protocol. */
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

/** Which colours run. Throws DockerError. */
export async function runningColors(stack: Stack): Promise<Color[]> {
  const states = await colorStates(stack);
  return COLORS.filter((color) => states[color] === "running");
}

/** The last lines that a colour's container logged, as much as can be read. Never throws. */
export async function recentLogs(stack: Stack, color: Color, lines: number): Promise<string> {
  const name = containerOf(stack.settings, color);
  const output = await docker(stack, ["logs", "--tail", String(lines), name]).catch(() => undefined);
  return output ? lastLines(output.stdall, lines) : "its log cannot be read";
}

/** The arguments that make a colour's container anew from its image, and start it and nothing else. */
export const upArgs = (stack: Stack, color: Color): string[] =>
  compose(
    stack,
    "up",
    ...["-d", "--no-deps", "--no-build", "--pull", "never", "--force-recreate"],
    serviceOf(color),
  );

/** Makes a colour's container anew from its image, and starts it and nothing else. */
async function upAnew(stack: Stack, color: Color): Promise<ProcessOutput> {
  // A paused one does not hear that it is to stop: replacing it would take its whole grace period.
  if ((await inspectColor(stack, color)).status === "paused")
    await act(stack, ["unpause", containerOf(stack.settings, color)]);
  return act(stack, upArgs(stack, color));
}

/** Spec `start_container`: starts one colour from the image just built, and nothing else. Throws DockerError. */
export const startContainer = async (stack: Stack, color: Color): Promise<void> =>
  expectStarted(color, await upAnew(stack, color));

const expectStarted = (color: Color, output: ProcessOutput): void =>
  expectSuccess(
    output,
    `starting ${color}`,
    "Mend what Docker says and run this again; nothing that serves was touched.",
  );

/** How a colour is started again. */
export interface Restart {
  /** The container as it was left, paused or stopped; else a new one, where it is gone, of a release that failed or made for another port. */
  asLeft: boolean;
  /** It is paused, and so has its port still. */
  hasPort: boolean;
  args: string[];
  /** The same as an owner could type it, for a dry run to tell. */
  command: string;
}

/** Finds out how a colour is started again. Throws NothingToRollBackToError when it has no good build, DockerError. */
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

/** Spec `start_container` as a rollback needs it: the container that was left, or a new one. Throws DockerError. */
export async function restartContainer(stack: Stack, color: Color, { asLeft, args }: Restart): Promise<void> {
  expectStarted(color, asLeft ? await act(stack, args) : await upAnew(stack, color));
}

/**
 * Spec `stop_container`: stops one colour, if it has a container, within `grace` seconds, or the time that Compose gave it.
 * Throws StopError.
 */
export function stopContainer(stack: Stack, color: Color, grace?: number): Promise<void> {
  const within = grace === undefined ? [] : ["--time", String(grace)];
  return quiesce(stack, color, ["stop", ...within]);
}

/** Stops or pauses one colour, if it has a container that is not so yet. Throws StopError. */
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

/** What `standDown` does to a colour, by STANDBY. */
export const STAND_DOWN = { stopped: "stop", paused: "pause" } as const;

/** Spec `stop_container` for a colour that a rollback may want back: stops it, or pauses it where STANDBY says so. Throws StopError. */
export const standDown = (stack: Stack, color: Color): Promise<void> =>
  quiesce(stack, color, [STAND_DOWN[stack.settings.standby]]);

/**
 * Takes a release that failed out of a rollback's reach: its container, which stays for its log, will not be started again,
 * and the colour's tag goes back. A colour that runs is left alone. Throws DockerError.
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
