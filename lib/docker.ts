import { statfs } from "node:fs/promises";
import { z } from "zod";
import { $, type ProcessOutput } from "zx/core";
import { COLORS, type Color } from "./color.ts";
import { BuildError, DockerError, StopError } from "./errors.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";

/** The Compose service of a colour; nginx's configuration names it too. */
const serviceOf = (color: Color): string => `loop-api-${color}`;

/** The container of a colour, as the owner meets it in `docker ps`. */
export const containerOf = ({ project }: Settings, color: Color): string => `${project}-api-${color}`;

/** The image of a colour: each keeps its own build, which is what a rollback goes back to. */
export const imageOf = ({ project }: Settings, color: Color): string => `${project}-api:${color}`;

/** Runs one docker command; the caller judges its exit code. `timeout` in seconds, none when left out. */
function docker({ settings, options }: Stack, args: string[], timeout?: number): Promise<ProcessOutput> {
  const run = $({
    env: settings.environment,
    nothrow: true,
    quiet: !options.verbose,
    verbose: options.verbose,
    // With a socket as standard input, bash takes itself for a remote shell and reads ~/.bashrc, each time.
    stdio: ["ignore", "pipe", "pipe"],
    ...(timeout === undefined ? {} : { timeout: `${timeout}s` as const }),
  });
  return run`${settings.dockerCmd} ${args}`;
}

function compose(stack: Stack, args: string[], timeout?: number): Promise<ProcessOutput> {
  const { project, composeFiles } = stack.settings;
  return docker(
    stack,
    ["compose", "-p", project, ...composeFiles.flatMap((file) => ["-f", file]), ...args],
    timeout,
  );
}

const lastLines = (text: string, count: number): string =>
  text.trimEnd().split("\n").slice(-count).join("\n");

function expectSuccess(output: ProcessOutput, doing: string, next: string): void {
  if (output.exitCode === 0) return;
  throw new DockerError(`Docker failed at ${doing}`, { details: lastLines(output.stdall, 20), next });
}

/** Is there an engine that answers, and Compose v2.20 or newer? Throws DockerError that says what is missing. */
export async function checkDocker(stack: Stack): Promise<void> {
  const { dockerCmd } = stack.settings;
  const [engine, plugin] = await Promise.all([
    docker(stack, ["version", "--format", "{{.Server.Version}}"], 30),
    docker(stack, ["compose", "version", "--short"], 30),
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
}

const Inspected = z.tuple([
  z.object({
    Image: z.string(),
    RestartCount: z.number(),
    State: z.object({ Status: z.string(), ExitCode: z.number() }),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullable() }),
    NetworkSettings: z.object({ Networks: z.record(z.string(), z.object({ IPAddress: z.string() })) }),
  }),
]);

/** A container as it is now. `absent`: there is none of this name. */
export interface Container {
  status: "absent" | "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** How often the engine restarted it by itself since it was last started. */
  restarts: number;
  exitCode: number;
  /** The id of the image it was made from. */
  image: string;
  /** Its IPv4 addresses, one a network. */
  addresses: string[];
}

async function inspect(stack: Stack, name: string): Promise<Container> {
  const output = await docker(stack, ["container", "inspect", name], 30);
  if (output.exitCode !== 0 && /no such container/i.test(output.stderr)) {
    return { status: "absent", restarts: 0, exitCode: 0, image: "", addresses: [] };
  }
  expectSuccess(output, `looking at the container ${name}`, "See whether Docker is well: docker ps");
  const [{ Image, RestartCount, State, Config, NetworkSettings }] = Inspected.parse(
    JSON.parse(output.stdout),
  );
  const owner = Config.Labels?.["com.docker.compose.project"];
  if (owner !== stack.settings.project) {
    throw new DockerError(`The container ${name} is not of this project but of ${owner ?? "none"}`, {
      next: `Rename or remove it (docker rename ${name} ${name}-old), or give this stack another COMPOSE_PROJECT_NAME.`,
    });
  }
  return {
    status: State.Status as Container["status"],
    restarts: RestartCount,
    exitCode: State.ExitCode,
    image: Image,
    addresses: Object.values(NetworkSettings.Networks).map(({ IPAddress }) => IPAddress),
  };
}

/** The container of a colour. Throws DockerError when the engine does not answer or the name is somebody else's. */
export const inspectColor = (stack: Stack, color: Color): Promise<Container> =>
  inspect(stack, containerOf(stack.settings, color));

/** Which colours run, a container that restarts over and over included. Throws DockerError. */
export async function runningColors(stack: Stack): Promise<Color[]> {
  const states = await Promise.all(COLORS.map((color) => inspectColor(stack, color)));
  return COLORS.filter((_, i) => ["running", "restarting"].includes(states[i]?.status ?? "absent"));
}

/** The id of the image that a colour's tag names, undefined for none. The tag is on the last build that was not found bad. */
export async function taggedImage(stack: Stack, color: Color): Promise<string | undefined> {
  const image = imageOf(stack.settings, color);
  const { stdout } = await docker(stack, ["image", "inspect", "--format", "{{.Id}}", image], 30);
  return stdout.trim() || undefined;
}

/**
 * Puts a colour's tag back on the image it named before a release that failed, or takes the tag away when there was none:
 * else a rollback would start the build that was just found bad. Throws DockerError.
 */
export async function restoreImage(stack: Stack, color: Color, before: string | undefined): Promise<void> {
  const tag = imageOf(stack.settings, color);
  if ((await taggedImage(stack, color)) === before) return;
  const output = await docker(stack, before ? ["tag", before, tag] : ["rmi", "--force", tag], 60);
  expectSuccess(
    output,
    `putting ${tag} back`,
    `Do not roll back to ${color} before a release to it has succeeded.`,
  );
}

/** Removes the image that a release has replaced, unless something uses it: a year of nightly builds fills a disk. */
export async function removeReplaced(stack: Stack, color: Color, before: string | undefined): Promise<void> {
  if (before && before !== (await taggedImage(stack, color))) await docker(stack, ["rmi", before], 60);
}

/** The last lines that a colour's container logged, as much as can be read. Never throws. */
export async function recentLogs(stack: Stack, color: Color, lines: number): Promise<string> {
  const { stdall } = await docker(
    stack,
    ["logs", "--tail", String(lines), containerOf(stack.settings, color)],
    30,
  );
  return lastLines(stdall, lines);
}

/** Free space where Docker keeps its data, in words; a remote engine's cannot be seen. */
async function freeSpace(stack: Stack): Promise<string> {
  const folder = (await docker(stack, ["info", "--format", "{{.DockerRootDir}}"], 30)).stdout.trim();
  try {
    const { bavail, bsize } = await statfs(folder);
    return `${((bavail * bsize) / 2 ** 30).toFixed(1)} GiB free in ${folder}`;
  } catch {
    return `free space in ${folder || "Docker's data folder"} unknown`;
  }
}

/** Spec `build_container`: builds the image of one colour. Throws BuildError with the output and the free disk space. */
export async function buildContainer(stack: Stack, color: Color): Promise<void> {
  const output = await compose(stack, ["build", serviceOf(color)]);
  if (output.exitCode === 0) return;
  throw new BuildError("Build failed, check disk space on NAS", {
    details: `${lastLines(output.stdall, 40)}\n${await freeSpace(stack)}`,
    next: "Mend what the output shows and deploy again; the color that serves was not touched.",
  });
}

/** Spec `start_container`: starts one colour from the image just built, and nothing else. Throws DockerError. */
export async function startContainer(stack: Stack, color: Color): Promise<void> {
  const output = await compose(stack, ["up", "-d", "--no-deps", "--no-build", serviceOf(color)], 120);
  expectSuccess(
    output,
    `starting ${color}`,
    "Mend what Docker says and run this again; the color that serves was not touched.",
  );
}

/**
 * Spec `start_container` as a rollback needs it: the container that was left, as it was left, or, where
 * that is gone or of a build that failed, a new one from the image.
 * Throws DockerError.
 */
export async function restartContainer(stack: Stack, color: Color): Promise<void> {
  const { image } = await inspectColor(stack, color);
  const asLeft = image !== "" && image === (await taggedImage(stack, color));
  const output = asLeft
    ? await docker(stack, ["start", containerOf(stack.settings, color)], 120)
    : await compose(stack, ["up", "-d", "--no-deps", "--no-build", "--pull", "never", serviceOf(color)], 120);
  expectSuccess(
    output,
    `starting ${color}`,
    "Mend what Docker says and run this again; the color that serves was not touched.",
  );
}

/** Spec `stop_container`: stops one colour, if it has a container, within the grace period that Compose gave it. Throws StopError. */
export async function stopContainer(stack: Stack, color: Color): Promise<void> {
  const name = containerOf(stack.settings, color);
  const output = await docker(stack, ["stop", name], 120);
  if (output.exitCode === 0 || /no such container/i.test(output.stderr)) return;
  throw new StopError(`${name} does not stop`, {
    details: lastLines(output.stdall, 5),
    next: `Stop it by hand: ${stack.settings.dockerCmd} stop ${name}`,
  });
}

/**
 * Starts nginx and auth where they do not run, and says so; a running one is never recreated.
 * Tells whether there was anything to start. Throws DockerError.
 */
export async function startFrontDoor(stack: Stack): Promise<boolean> {
  const { project, nginxContainer } = stack.settings;
  const containers = { "loop-nginx": nginxContainer, "loop-auth": `${project}-auth` };
  const states = await Promise.all(Object.values(containers).map((name) => inspect(stack, name)));
  const down = Object.entries(containers).filter(
    (_, i) => !["running", "restarting"].includes(states[i]?.status ?? "absent"),
  );
  for (const [service, name] of down) {
    stack.log.info(`${name} does not run: bringing it up`);
    const output = await compose(stack, ["up", "-d", "--no-deps", "--no-recreate", service]);
    expectSuccess(
      output,
      `bringing up ${name}`,
      "Mend what Docker says (is its port free?) and run this again.",
    );
  }
  return down.length > 0;
}

/** Runs a command inside nginx's container; 30 s at most; the caller judges its exit code. */
export const execInNginx = (stack: Stack, command: string[]): Promise<ProcessOutput> =>
  docker(stack, ["exec", stack.settings.nginxContainer, ...command], 30);

/** Which running container publishes a host port, if any. Throws DockerError. */
export async function containerOnPort(stack: Stack, port: number): Promise<string | undefined> {
  const output = await docker(stack, ["ps", "--filter", `publish=${port}`, "--format", "{{.Names}}"], 30);
  expectSuccess(output, "listing containers", "See whether Docker is well: docker ps");
  return output.stdout.trim().split("\n")[0] || undefined;
}
