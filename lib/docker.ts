import { z } from "zod";
import { type ProcessOutput, quote } from "zx/core";
import { COLORS, type Color } from "./color.ts";
import { run } from "./command.ts";
import { ComposeFileError, DeadlineError, DockerError, StopError } from "./errors.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";

/** How long, in seconds, the engine may take: to tell or note something, and to start or stop a container. */
const [TELL_SECONDS, ACT_SECONDS] = [30, 120];
/** The first start of nginx and auth may pull one and build the other. */
const FIRST_START_SECONDS = 1800;

/** The restart policy of a container that is of a failed release. Only its image would not tell: its settings may be what was bad. */
const NEVER = "no";

/** Enough, in seconds, to stop a colour that never had traffic; one that is still starting may not listen to signals yet. */
export const NEVER_SERVED_GRACE = 3;

/** The Compose service of a colour; nginx's configuration names it too. */
const serviceOf = (color: Color): string => `loop-api-${color}`;

/** The container of a colour, as the owner meets it in `docker ps`. */
export const containerOf = ({ project }: Settings, color: Color): string => `${project}-api-${color}`;

/** The image of a colour: each keeps its own build, which is what a rollback goes back to. */
export const imageOf = ({ project }: Settings, color: Color): string => `${project}-api:${color}`;

interface How {
  /** Seconds until it counts as hung; undefined for none. */
  deadline?: number | undefined;
  /** Kills the command when it is aborted. */
  signal?: AbortSignal;
  onLine?: (line: string) => void;
  /** For this command, over the settings. */
  environment?: Record<string, string>;
}

/** Runs one docker command, with TELL_SECONDS to end; the caller judges its exit code. Throws DeadlineError. */
function docker({ settings, options, lock }: Stack, args: string[], how: How = {}): Promise<ProcessOutput> {
  return run(settings.dockerCmd, args, {
    deadline: TELL_SECONDS,
    ...how,
    environment: { ...settings.environment, ...how.environment },
    verbose: options.verbose,
    keepOpen: lock.descriptor,
  });
}

/** Runs one docker command that starts or stops something. */
const act = (stack: Stack, args: string[]): Promise<ProcessOutput> =>
  docker(stack, args, { deadline: ACT_SECONDS });

/** The arguments of a Compose command for this stack. */
const compose = ({ settings: { project, composeFiles } }: Stack, ...args: string[]): string[] => [
  "compose",
  "-p",
  project,
  ...composeFiles.flatMap((file) => ["-f", file]),
  ...args,
];

/** A command as an owner could type it. */
const typed = ({ settings }: Stack, args: string[]): string =>
  [settings.dockerCmd, ...args].map(quote).join(" ");

const buildArgs = (stack: Stack, color: Color): string[] => compose(stack, "build", serviceOf(color));
const upArgs = (stack: Stack, color: Color): string[] =>
  compose(
    stack,
    "up",
    ...["-d", "--no-deps", "--no-build", "--pull", "never", "--force-recreate"],
    serviceOf(color),
  );
const frontDoorArgs = (stack: Stack, service: string): string[] =>
  compose(stack, "up", "-d", "--no-deps", "--no-recreate", service);
const oursOnly = ({ settings }: Stack): string => `label=com.docker.compose.project=${settings.project}`;
const pruneArgs = (stack: Stack): string[] => ["image", "prune", "--force", "--filter", oursOnly(stack)];

/** What `standDown` does to a colour, by STANDBY. */
export const STAND_DOWN = { stopped: "stop", paused: "pause" } as const;

/** The commands of the acts that bring one colour up and the other down, for a dry run to tell. */
export const dockerCommands = (stack: Stack, from: Color, to: Color) => ({
  build: [typed(stack, buildArgs(stack, to))],
  start: [typed(stack, upArgs(stack, to))],
  standDown: [typed(stack, [STAND_DOWN[stack.settings.standby], containerOf(stack.settings, from)])],
  prune: [typed(stack, pruneArgs(stack))],
});

const lastLines = (text: string, count: number): string =>
  text.trimEnd().split("\n").slice(-count).join("\n");

function expectSuccess(output: ProcessOutput, doing: string, next: string): void {
  if (output.exitCode === 0) return;
  throw new DockerError(`Docker failed at ${doing}`, { details: lastLines(output.stdall, 20), next });
}

/**
 * Is there an engine that answers, Compose v2.20 or newer, and a compose file that it can read?
 * Throws DockerError that says what is missing, ComposeFileError.
 */
export async function checkDocker(stack: Stack): Promise<void> {
  const { dockerCmd } = stack.settings;
  const [engine, plugin] = await Promise.all([
    docker(stack, ["version", "--format", "{{.Server.Version}}"]),
    docker(stack, ["compose", "version", "--short"]),
  ]);
  if (engine.exitCode !== 0) {
    throw new DockerError(`Docker is not reachable with ${dockerCmd}`, {
      details: lastLines(engine.stderr, 5),
      next: "Start Docker (on the NAS: Container Manager), run this as a user who may use it, or set DOCKER_CMD to the right command.",
    });
  }
  const [, major = 0, minor = 0] = plugin.stdout.match(/(\d+)\.(\d+)/)?.map(Number) ?? [];
  if (plugin.exitCode !== 0 || major < 2 || (major === 2 && minor < 20)) {
    throw new DockerError(
      `Docker Compose v2 is missing or too old (${plugin.stdout.trim() || "none"}; 2.20 or newer is needed)`,
      {
        next: "Update Container Manager on the NAS; elsewhere install the Compose plugin: https://docs.docker.com/compose/install/linux/",
      },
    );
  }
  const config = await docker(stack, compose(stack, "config", "--quiet"));
  if (config.exitCode === 0) return;
  throw new ComposeFileError(`Compose cannot read ${stack.settings.composeFiles.join(", ")}`, {
    details: lastLines(config.stderr, 10),
    next: "Correct it (COMPOSE_FILE); nothing was changed.",
  });
}

const REVISION = "org.opencontainers.image.revision";

/** Only what is used: --verbose shows the output, and the whole of it has the environment in it, with the owner's secrets. */
const INSPECTED = `{"image":{{json .Image}},"restarts":{{.RestartCount}},"status":{{json .State.Status}},
"exitCode":{{.State.ExitCode}},"policy":{{json .HostConfig.RestartPolicy.Name}},"labels":{{json .Config.Labels}},
"networks":{{json .NetworkSettings.Networks}},"ports":{{json .HostConfig.PortBindings}}}`;
const Inspected = z.object({
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

async function inspect(stack: Stack, name: string): Promise<Container> {
  const output = await docker(stack, ["container", "inspect", "--format", INSPECTED, name]);
  if (output.exitCode !== 0 && /no such container/i.test(output.stderr)) {
    return {
      status: "absent",
      restarts: 0,
      exitCode: 0,
      image: "",
      discarded: false,
      addresses: [],
      ports: [],
    };
  }
  expectSuccess(output, `looking at the container ${name}`, "See whether Docker is well: docker ps");
  const seen = Inspected.parse(JSON.parse(output.stdout));
  const owner = seen.labels?.["com.docker.compose.project"];
  if (owner !== stack.settings.project) {
    throw new DockerError(`The container ${name} is not of this project but of ${owner ?? "none"}`, {
      next: `Rename or remove it (docker rename ${name} ${name}-old), or give this stack another COMPOSE_PROJECT_NAME.`,
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

/** The container of a colour. Throws DockerError when the engine does not answer or the name is somebody else's. */
export const inspectColor = (stack: Stack, color: Color): Promise<Container> =>
  inspect(stack, containerOf(stack.settings, color));

/** What a colour's container is to the protocol. */
export type State = "running" | "stopped" | "absent";

/** The state of both containers; one that restarts over and over counts as running, one that is paused does not. Throws DockerError. */
export async function colorStates(stack: Stack): Promise<Record<Color, State>> {
  const stateOf = async (color: Color): Promise<State> => {
    const { status } = await inspectColor(stack, color);
    if (status === "absent") return "absent";
    return ["running", "restarting"].includes(status) ? "running" : "stopped";
  };
  const [blue, green] = await Promise.all([stateOf("blue"), stateOf("green")]);
  return { blue, green };
}

/** Which colours run. Throws DockerError. */
export async function runningColors(stack: Stack): Promise<Color[]> {
  const states = await colorStates(stack);
  return COLORS.filter((color) => states[color] === "running");
}

const InspectedImage = z.tuple([
  z.object({
    Id: z.string(),
    Created: z.string(),
    Size: z.number(),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullable() }),
  }),
]);

/** An image. */
export interface Image {
  id: string;
  /** When it was built: ISO 8601. */
  built: string;
  bytes: number;
  /** The commit of its source, where that was a git checkout. */
  revision: string | undefined;
}

/** An image by its name or id; undefined when there is none. Throws DockerError. */
export async function inspectImage(stack: Stack, name: string): Promise<Image | undefined> {
  const output = await docker(stack, ["image", "inspect", name]);
  if (output.exitCode !== 0 && /no such image/i.test(output.stderr)) return undefined;
  expectSuccess(output, `looking at the image ${name}`, "See whether Docker is well: docker ps");
  const [{ Id, Created, Size, Config }] = InspectedImage.parse(JSON.parse(output.stdout));
  return { id: Id, built: Created, bytes: Size, revision: Config.Labels?.[REVISION] || undefined };
}

/** The image that a colour's tag names, undefined for none. The tag is on the last build that was not found bad. */
export const taggedImage = (stack: Stack, color: Color): Promise<Image | undefined> =>
  inspectImage(stack, imageOf(stack.settings, color));

/**
 * Puts a colour's tag back on the image it named before a release that failed, or takes it away when there was none, or
 * when that image is gone: else a rollback would start the build that was just found bad. Throws DockerError.
 */
export async function restoreImage(stack: Stack, color: Color, before: string | undefined): Promise<void> {
  const tag = imageOf(stack.settings, color);
  const now = await taggedImage(stack, color);
  if (now?.id === before) return;
  const there = before && (await inspectImage(stack, before));
  if (before && !there)
    stack.log.warn(`the image that ${tag} was before is gone: there is no way back to it`);
  const output = await docker(stack, there ? ["tag", there.id, tag] : ["rmi", "--force", tag]);
  expectSuccess(
    output,
    `putting ${tag} back`,
    `Do not roll back to ${color} before a release to it has succeeded.`,
  );
}

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

/**
 * Removes the images of this project that no tag names any more, those of failed releases included, unless a container
 * uses them: a year of nightly builds fills a disk. What cannot be removed is left for the next time. Never throws.
 */
export async function pruneImages(stack: Stack): Promise<void> {
  await act(stack, pruneArgs(stack)).catch((error) =>
    stack.log.warn(`old images were not removed: ${error.message}`),
  );
}

/** A record of the engine's build cache; times in ms since 1970. */
export interface CacheRecord {
  id: string;
  created: number;
  used: number;
  inUse: boolean;
}

const CacheRecords = z.array(
  z.object({ ID: z.string(), CreatedAt: z.string(), LastUsedAt: z.string(), InUse: z.string() }),
);

/** Docker writes times as 2030-01-31 03:00:00.123456789 +0100 CET. */
const timeOf = (text: string): number =>
  Date.parse(text.replace(/^(\S+) (\d+:\d+:\d+)(\.\d{1,3})?\d* ([+-]\d\d)(\d\d).*/, "$1T$2$3$4:$5"));

/** Reads what `docker system df` says of the build cache, as JSON. Throws what zod throws. */
export const readCacheRecords = (json: string): CacheRecord[] =>
  CacheRecords.parse(JSON.parse(json) ?? []).map(({ ID, CreatedAt, LastUsedAt, InUse }) => ({
    id: ID.replace("*", ""),
    created: timeOf(CreatedAt),
    used: timeOf(LastUsedAt),
    inUse: InUse === "true",
  }));

/** The engine's whole build cache, of all projects. Throws DockerError. */
export async function listBuildCache(stack: Stack): Promise<CacheRecord[]> {
  const output = await act(stack, ["system", "df", "--verbose", "--format", "{{json .BuildCache}}"]);
  expectSuccess(output, "looking at the build cache", "See whether Docker is well: docker system df");
  return readCacheRecords(output.stdout);
}

/** Removes one record of the build cache, unless another needs it. Throws DeadlineError. */
export async function removeFromBuildCache(stack: Stack, id: string): Promise<void> {
  await act(stack, ["builder", "prune", "--force", "--all", "--filter", `id=${id}`]);
}

/** Where the engine keeps its data. Throws DeadlineError. */
export async function dataFolder(stack: Stack): Promise<string> {
  return (await docker(stack, ["info", "--format", "{{.DockerRootDir}}"])).stdout.trim();
}

/** The last lines that a colour's container logged, as much as can be read. Never throws. */
export async function recentLogs(stack: Stack, color: Color, lines: number): Promise<string> {
  const name = containerOf(stack.settings, color);
  const output = await docker(stack, ["logs", "--tail", String(lines), name]).catch(() => undefined);
  return output ? lastLines(output.stdall, lines) : "its log cannot be read";
}

/**
 * Builds the image of one colour, labelled with its source revision, without a deadline; ends when the run is interrupted.
 * Gives the last lines of its output.
 */
export async function buildImage(
  stack: Stack,
  color: Color,
  revision: string | undefined,
): Promise<{ succeeded: boolean; output: string }> {
  const { signal, log } = stack;
  const environment = { LOOP_API_REVISION: revision ?? "" };
  const output = await docker(stack, buildArgs(stack, color), {
    deadline: undefined,
    signal,
    onLine: log.progress,
    environment,
  });
  return { succeeded: output.exitCode === 0, output: lastLines(output.stdall, 40) };
}

/** Makes a colour's container anew from its image, and starts it and nothing else. */
async function upAnew(stack: Stack, color: Color): Promise<ProcessOutput> {
  // A paused one does not hear that it is to stop: replacing it would take its whole grace period.
  if ((await inspectColor(stack, color)).status === "paused")
    await act(stack, ["unpause", containerOf(stack.settings, color)]);
  return act(stack, upArgs(stack, color));
}

/** Spec `start_container`: starts one colour from the image just built, and nothing else. Throws DockerError. */
export async function startContainer(stack: Stack, color: Color): Promise<void> {
  const output = await upAnew(stack, color);
  expectSuccess(
    output,
    `starting ${color}`,
    "Mend what Docker says and run this again; the color that serves was not touched.",
  );
}

/** How a colour is started again. */
export interface Restart {
  /** The container as it was left, paused or stopped; else a new one, where it is gone or of a release that failed. */
  asLeft: boolean;
  args: string[];
  /** The same as an owner could type it, for a dry run to tell. */
  command: string;
}

/** Finds out how a colour is started again. Throws DockerError. */
export async function findRestart(stack: Stack, color: Color): Promise<Restart> {
  const { image, discarded, status } = await inspectColor(stack, color);
  const asLeft = image !== "" && image === (await taggedImage(stack, color))?.id && !discarded;
  const again = [status === "paused" ? "unpause" : "start", containerOf(stack.settings, color)];
  const args = asLeft ? again : upArgs(stack, color);
  return { asLeft, args, command: typed(stack, args) };
}

/** Spec `start_container` as a rollback needs it: the container that was left, or a new one. Throws DockerError. */
export async function restartContainer(stack: Stack, color: Color, { asLeft, args }: Restart): Promise<void> {
  const output = asLeft ? await act(stack, args) : await upAnew(stack, color);
  expectSuccess(
    output,
    `starting ${color}`,
    "Mend what Docker says and run this again; the color that serves was not touched.",
  );
}

/**
 * Spec `stop_container`: stops one colour, if it has a container, within `grace` seconds, or the time that Compose gave it.
 * Throws StopError.
 */
export async function stopContainer(stack: Stack, color: Color, grace?: number): Promise<void> {
  const name = containerOf(stack.settings, color);
  const within = grace === undefined ? [] : ["--time", String(grace)];
  let seen: string;
  try {
    const output = await act(stack, ["stop", ...within, name]);
    if (output.exitCode === 0 || /no such container/i.test(output.stderr)) return;
    seen = lastLines(output.stdall, 5);
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    seen = error.message;
  }
  throw new StopError(`${name} does not stop`, {
    details: seen,
    next: `Stop it by hand: ${stack.settings.dockerCmd} stop ${name}`,
  });
}

/** Spec `stop_container` for a colour that a rollback may want back: stops it, or pauses it where STANDBY says so. Throws StopError. */
export async function standDown(stack: Stack, color: Color): Promise<void> {
  if (stack.settings.standby === "stopped") return stopContainer(stack, color);
  const name = containerOf(stack.settings, color);
  const output = await act(stack, ["pause", name]);
  if (output.exitCode === 0 || /already paused|no such container/i.test(output.stderr)) return;
  throw new StopError(`${name} cannot be paused`, {
    details: lastLines(output.stdall, 5),
    next: `Stop it by hand: ${stack.settings.dockerCmd} stop ${name}`,
  });
}

/** The containers of nginx and auth. */
export interface FrontDoor {
  nginx: Container;
  auth: Container;
}

/** Looks at nginx and auth. Throws DockerError. */
export async function inspectFrontDoor(stack: Stack): Promise<FrontDoor> {
  const { nginxContainer, project } = stack.settings;
  const [nginx, auth] = await Promise.all([
    inspect(stack, nginxContainer),
    inspect(stack, `${project}-auth`),
  ]);
  return { nginx, auth };
}

/** A service of the front door that does not run. */
export interface Down {
  name: string;
  service: string;
  /** What brings it up. */
  command: string;
}

/** Which of nginx and auth do not run. */
export function downServices(stack: Stack, { nginx, auth }: FrontDoor): Down[] {
  const { nginxContainer, project } = stack.settings;
  return [
    { service: "loop-nginx", name: nginxContainer, ...nginx },
    { service: "loop-auth", name: `${project}-auth`, ...auth },
  ]
    .filter(({ status }) => !["running", "restarting"].includes(status))
    .map(({ service, name }) => ({ service, name, command: typed(stack, frontDoorArgs(stack, service)) }));
}

/** Starts nginx or auth; a running one is never recreated. Throws DockerError, InterruptedError. */
export async function startService(stack: Stack, { service, name }: Down): Promise<void> {
  const up = frontDoorArgs(stack, service);
  const { signal, log } = stack;
  const output = await docker(stack, up, { deadline: FIRST_START_SECONDS, signal, onLine: log.progress });
  signal.throwIfAborted();
  expectSuccess(
    output,
    `bringing up ${name}`,
    "Mend what Docker says (is its port free?) and run this again.",
  );
}

/** Runs a command inside nginx's container that takes `seconds` at most itself; the caller judges its exit code. */
export const execInNginx = (stack: Stack, command: string[], seconds = 0): Promise<ProcessOutput> =>
  docker(stack, ["exec", stack.settings.nginxContainer, ...command], { deadline: seconds + TELL_SECONDS });

/** Which running container publishes a host port, if any. Throws DockerError. */
export async function containerOnPort(stack: Stack, port: number): Promise<string | undefined> {
  const output = await docker(stack, ["ps", "--filter", `publish=${port}`, "--format", "{{.Names}}"]);
  expectSuccess(output, "listing containers", "See whether Docker is well: docker ps");
  return output.stdout.trim().split("\n")[0] || undefined;
}
