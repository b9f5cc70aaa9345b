import type { ProcessOutput } from "zx/core";
import { DockerError } from "../errors.ts";
import { run } from "../run/command.ts";
import type { Context } from "../run/context.ts";
import { emptyMount } from "../settings.ts";
import { quote } from "../util/quote.ts";

/** Seconds that the engine may take to answer a question, and to start or stop a container. */
export const [QUERY_SECONDS, ACT_SECONDS] = [30, 120];

/** The next step when the engine does not answer a simple question. */
export const CHECK_DOCKER = "Check that Docker works: docker ps";

interface How {
  /** Seconds until the command counts as hung; undefined for no limit. */
  deadline?: number | undefined;
  /** Kills the command when aborted. */
  signal?: AbortSignal;
  onLine?: (line: string) => void;
  /** What it reads on its standard input. */
  input?: string;
  /** Does --verbose print the command only? Its output may hold secrets. */
  hideOutput?: boolean;
  /** Variables for this command only; they override the settings. */
  environment?: Record<string, string>;
}

/**
 * Compose runs git in the sources to label a build with their commit. Anyone who can write the sources' `.git/config` could
 * then run commands as root. `sourceRevision` reads the commit without git.
 */
const NO_GIT = { BUILDX_GIT_INFO: "false", BUILDX_GIT_LABELS: "false", BUILDX_GIT_CHECK_DIRTY: "false" };

/** An API without auth gets no OAuth data. A color that is recreated may have another AUTH than the settings. */
const withoutUnusedMounts = (environment: Record<string, string>): Record<string, string> =>
  environment.AUTH === "off" ? { ...environment, ...emptyMount("OAUTH") } : environment;

/** Runs one docker command, for QUERY_SECONDS at most. The caller checks its exit code. Throws DeadlineError. */
export function docker(
  { settings, options, lock, commandSignal }: Context,
  args: string[],
  how: How = {},
): Promise<ProcessOutput> {
  return run(settings.dockerCmd, args, {
    deadline: QUERY_SECONDS,
    ...(commandSignal ? { signal: commandSignal } : {}),
    ...how,
    environment: withoutUnusedMounts({ ...settings.environment, ...NO_GIT, ...how.environment }),
    verbose: options.verbose,
    keepOpen: lock.descriptor,
  });
}

/** Runs one docker command that starts or stops something. */
export const act = (context: Context, args: string[]): Promise<ProcessOutput> =>
  docker(context, args, { deadline: ACT_SECONDS });

/** The arguments of a Compose command for this project. */
export const compose = ({ settings: { project, composeFiles } }: Context, ...args: string[]): string[] => [
  "compose",
  "-p",
  project,
  ...composeFiles.flatMap((file) => ["-f", file]),
  ...args,
];

/** A docker command as an owner would type it. */
export const shellCommand = ({ settings }: Context, args: string[]): string =>
  [settings.dockerCmd, ...args].map(quote).join(" ");

/** What a command printed, and its exit code. */
export type Output = Pick<ProcessOutput, "exitCode" | "stdout" | "stderr" | "stdall">;

/** The last `count` lines of a text. */
export const lastLines = (text: string, count: number): string =>
  text.trimEnd().split("\n").slice(-count).join("\n");

/** The error for a docker command that failed. `doing` completes "Docker failed while …". */
export const dockerFailed = (output: Output, doing: string, next: string): DockerError =>
  new DockerError(`Docker failed while ${doing}`, { details: lastLines(output.stdall, 20), next });

/** Throws DockerError unless the command exited with 0. */
export function expectSuccess(output: Output, doing: string, next: string): void {
  if (output.exitCode !== 0) throw dockerFailed(output, doing, next);
}
