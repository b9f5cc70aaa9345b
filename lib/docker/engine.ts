import { type ProcessOutput, quote } from "zx/core";
import type { Color } from "../color.ts";
import { run } from "../command.ts";
import { ComposeFileError, DockerError } from "../errors.ts";
import { checkComposeFiles } from "../settings.ts";
import type { Stack } from "../stack.ts";

/** How long, in seconds, the engine may take: to tell or note something, and to start or stop a container. */
export const [TELL_SECONDS, ACT_SECONDS] = [30, 120];

interface How {
  /** Seconds until it counts as hung; undefined for none. */
  deadline?: number | undefined;
  /** Kills the command when it is aborted. */
  signal?: AbortSignal;
  onLine?: (line: string) => void;
  /** For this command, over the settings. */
  environment?: Record<string, string>;
}

/**
 * A build by Compose would run git in the sources, to note their commit: whoever can write their `.git/config` would run
 * commands here, as root under cron. `sourceRevision` finds the commit without.
 */
const NO_GIT = { BUILDX_GIT_INFO: "false", BUILDX_GIT_LABELS: "false", BUILDX_GIT_CHECK_DIRTY: "false" };

/** Runs one docker command, with TELL_SECONDS to end; the caller judges its exit code. Throws DeadlineError. */
export function docker(
  { settings, options, lock }: Stack,
  args: string[],
  how: How = {},
): Promise<ProcessOutput> {
  return run(settings.dockerCmd, args, {
    deadline: TELL_SECONDS,
    ...how,
    environment: { ...settings.environment, ...NO_GIT, ...how.environment },
    verbose: options.verbose,
    keepOpen: lock.descriptor,
  });
}

/** Runs one docker command that starts or stops something. */
export const act = (stack: Stack, args: string[]): Promise<ProcessOutput> =>
  docker(stack, args, { deadline: ACT_SECONDS });

/** The arguments of a Compose command for this stack. */
export const compose = ({ settings: { project, composeFiles } }: Stack, ...args: string[]): string[] => [
  "compose",
  "-p",
  project,
  ...composeFiles.flatMap((file) => ["-f", file]),
  ...args,
];

/** A command as an owner could type it. */
export const typed = ({ settings }: Stack, args: string[]): string =>
  [settings.dockerCmd, ...args].map(quote).join(" ");

/** The Compose service of a color; nginx's configuration names it too. */
export const serviceOf = (color: Color): string => `loop-api-${color}`;

/** The filter for what is of this project, as Compose labels it: never anyone else's. */
export const oursOnly = ({ settings }: Stack): string =>
  `label=com.docker.compose.project=${settings.project}`;

/** The last `count` lines of a text. */
export const lastLines = (text: string, count: number): string =>
  text.trimEnd().split("\n").slice(-count).join("\n");

/** The error for a command that did not do what it was to do, with the end of its output, and what to do next. */
export const dockerFailed = (output: ProcessOutput, doing: string, next: string): DockerError =>
  new DockerError(`Docker failed at ${doing}`, { details: lastLines(output.stdall, 20), next });

/** Throws that error unless a command ended well. */
export function expectSuccess(output: ProcessOutput, doing: string, next: string): void {
  if (output.exitCode !== 0) throw dockerFailed(output, doing, next);
}

/** Is there an engine that answers? Throws DockerError. */
export async function checkEngine(stack: Stack): Promise<void> {
  const engine = await docker(stack, ["version", "--format", "{{.Server.Version}}"]);
  if (engine.exitCode === 0) return;
  throw new DockerError(`Docker is not reachable with ${stack.settings.dockerCmd}`, {
    details: lastLines(engine.stderr, 5),
    next: "Start Docker (on the NAS: Container Manager), run this as a user who may use it, or set DOCKER_CMD to the right command.",
  });
}

/**
 * Is there Compose v2.20 or newer, and a compose file that it can read? What is started as it was left does without.
 * Throws DockerError that says what is missing, ComposeFileError, UsageError where containers can write to that file.
 */
export async function checkCompose(stack: Stack): Promise<void> {
  checkComposeFiles(stack.settings);
  const [plugin, config] = await Promise.all([
    docker(stack, ["compose", "version", "--short"]),
    docker(stack, compose(stack, "config", "--quiet")),
  ]);
  const [, major = 0, minor = 0] = plugin.stdout.match(/(\d+)\.(\d+)/)?.map(Number) ?? [];
  if (plugin.exitCode !== 0 || major < 2 || (major === 2 && minor < 20)) {
    throw new DockerError(
      `Docker Compose v2 is missing or too old (${plugin.stdout.trim() || "none"}; 2.20 or newer is needed)`,
      {
        next: "Update Container Manager on the NAS; elsewhere install the Compose plugin: https://docs.docker.com/compose/install/linux/",
      },
    );
  }
  if (config.exitCode === 0) return;
  throw new ComposeFileError(`Compose cannot read ${stack.settings.composeFiles.join(", ")}`, {
    details: lastLines(config.stderr, 10),
    next: "Correct it (COMPOSE_FILE); nothing was changed.",
  });
}

/** Where the engine keeps its data. Throws DeadlineError. */
export async function dataFolder(stack: Stack): Promise<string> {
  return (await docker(stack, ["info", "--format", "{{.DockerRootDir}}"])).stdout.trim();
}

/** Which running container publishes a host port, if any. Throws DockerError. */
export async function containerOnPort(stack: Stack, port: number): Promise<string | undefined> {
  const output = await docker(stack, ["ps", "--filter", `publish=${port}`, "--format", "{{.Names}}"]);
  expectSuccess(output, "listing containers", "See whether Docker is well: docker ps");
  return output.stdout.trim().split("\n")[0] || undefined;
}
