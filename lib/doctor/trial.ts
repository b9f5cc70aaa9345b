import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { ACT_SECONDS, act, CHECK_DOCKER, compose, docker, expectSuccess, lastLines } from "../docker/cli.ts";
import { serviceOf } from "../docker/names.ts";
import { DockerError } from "../errors.ts";
import { type Context, uninterruptible } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { isFolder } from "../settings-schema.ts";

/** The API in a container of its own, beside the colors. */
export interface Trial {
  /** Its port on 127.0.0.1. */
  port: number;
  /** How it ended, with the last lines of its log; undefined while it runs. Throws DockerError. */
  ending(): Promise<string | undefined>;
}

/** The color whose service is tried; the other one differs in names only. */
const COLOR = "blue";

/**
 * A Compose project of its own, by which what belongs to the trial is found and removed. Its name is random: a fixed one could be
 * that of a real project, whose volumes would then be removed.
 */
const newProject = ({ project }: Settings): string => `${project}-doctor-${randomBytes(4).toString("hex")}`;

/** Is this the project of a trial of this stack? The next doctor removes what a killed one may have left. */
export const isTrialOf = ({ project }: Pick<Settings, "project">, name: string): boolean =>
  name.startsWith(`${project}-doctor-`) && /^[0-9a-f]{8}$/.test(name.slice(`${project}-doctor-`.length));

const PROJECT_LABEL = "com.docker.compose.project";
const labelOf = (project: string): string => `label=${PROJECT_LABEL}=${project}`;

/** The trial container of a project. */
const nameOf = (project: string): string => `${project}-trial`;

/** The image that `--build` builds. */
const builtImage = ({ project }: Settings): string => `${project}-doctor:trial`;

/** A text in YAML, without Compose's variables. */
const quoted = (text: string): string => JSON.stringify(text).replaceAll("$", "$$$$");

/** What differs from the compose file: the API only reads the vault, and is not started again. */
const overrides = ({ vaultPath }: Settings, image: string): string => `services:
  ${serviceOf(COLOR)}:
    image: ${quoted(image)}
    restart: "no"
${vaultPath === undefined ? "" : readOnlyVault(vaultPath)}`;

const readOnlyVault = (path: string): string => `    volumes:
      - { type: bind, source: ${quoted(path)}, target: /vault, read_only: true }
`;

/** A Compose command for the trial's project. The overrides go to standard input: a file could be left behind. */
function trialCompose(
  context: Context,
  project: string,
  image: string,
  args: readonly string[],
  how: Parameters<typeof docker>[2],
): ReturnType<typeof docker> {
  const { settings } = context;
  const composeFiles = [...settings.composeFiles, "-"];
  const trial = { ...context, settings: { ...settings, project, composeFiles } };
  // Compose would create a missing folder.
  const oauth = isFolder(settings.oauthDataPath) ? settings.oauthDataPath : import.meta.dirname;
  return docker(context, compose(trial, ...args), {
    ...how,
    input: overrides(settings, image),
    environment: { COMPOSE_PROJECT_NAME: project, OAUTH_DATA_PATH: oauth },
  });
}

/** Builds the API's image for a trial. Throws DockerError, DeadlineError, InterruptedError. */
export async function buildTrial(context: Context, project: string): Promise<string> {
  const { settings, signal, log } = context;
  const image = builtImage(settings);
  const output = await trialCompose(context, project, image, ["build", serviceOf(COLOR)], {
    deadline: settings.buildSeconds,
    signal,
    onLine: log.progress,
  });
  signal.throwIfAborted();
  expectSuccess(output, "building the API", "Fix what the build reports.");
  return image;
}

/**
 * Removes the trial when this process ends, even by SIGKILL: only this process holds the other end of its standard input. A
 * container that is being created at that moment appears later, hence several attempts.
 */
const WATCHDOG = `trap "" HUP INT TERM
read -r line
for pause in 0 5 25; do
  sleep "$pause"
  "$1" rm --force --volumes "$2"
  "$1" network prune --force --filter "$3"
done`;

function startWatchdog({ settings }: Context, project: string): () => void {
  const child = spawn(
    "/bin/sh",
    ["-c", WATCHDOG, "sh", settings.dockerCmd, nameOf(project), labelOf(project)],
    { env: settings.environment, detached: true, stdio: ["pipe", "ignore", "ignore"] },
  );
  child.on("error", () => undefined); // without it, the trial is still removed when this process ends normally
  child.unref();
  return () => {
    child.kill("SIGKILL");
    child.stdin?.destroy();
  };
}

/** The projects of the trials that left something. Throws DockerError. */
async function leftTrials(context: Context): Promise<string[]> {
  const asked = [
    ["ps", "--all"],
    ["network", "ls"],
    ["volume", "ls"],
  ].map(async (list) => {
    const format = ["--filter", `label=${PROJECT_LABEL}`, "--format", `{{.Label "${PROJECT_LABEL}"}}`];
    const listed = await docker(context, [...list, ...format]);
    expectSuccess(listed, "listing what an earlier trial left", CHECK_DOCKER);
    return listed.stdout.split("\n").filter((name) => isTrialOf(context.settings, name));
  });
  return [...new Set((await Promise.all(asked)).flat())];
}

/** Removes everything of a trial: its container, networks, volumes and built image. Throws DockerError. */
async function removeTrial(context: Context, project: string): Promise<void> {
  const { settings } = context;
  await act(context, ["rm", "--force", "--volumes", nameOf(project)]); // fails if there is none
  for (const kind of ["network", "volume"]) {
    const listed = await docker(context, [kind, "ls", "--quiet", "--filter", labelOf(project)]);
    expectSuccess(listed, "listing what the trial left", CHECK_DOCKER);
    const ids = listed.stdout.split("\n").filter(Boolean);
    if (ids.length === 0) continue;
    const removed = await act(context, [kind, "rm", ...ids]);
    expectSuccess(removed, "removing what the trial left", `Remove it: docker ${kind} rm ${ids.join(" ")}`);
  }
  await act(context, ["rmi", "--force", builtImage(settings)]);
}

/**
 * Starts the API from an image as the compose file would, but with a read-only vault, a network of its own, and a port that
 * only this machine can reach. Throws DockerError, DeadlineError.
 */
export async function startTrial(context: Context, project: string, image: string): Promise<Trial> {
  const { api } = context.settings;
  const name = nameOf(project);
  const publish = `127.0.0.1::${api.port}`;
  const args = ["run", "--detach", "--no-deps", "--name", name, "--publish", publish, serviceOf(COLOR)];
  const { commandSignal: _, ...rest } = context; // killed, it could still create the container after its removal
  const started = await trialCompose(rest, project, image, args, { deadline: ACT_SECONDS });
  expectSuccess(started, "starting the trial container", "Fix what Docker reports.");
  const mapped = await docker(context, ["port", name, `${api.port}/tcp`]);
  return {
    port: Number(mapped.stdout.trim().split("\n")[0]?.split(":").at(-1)), // NaN if it has ended
    ending: () => endingOf(context, name),
  };
}

async function endingOf(context: Context, name: string): Promise<string | undefined> {
  const format = "{{.State.Status}} {{.State.ExitCode}}";
  const output = await docker(context, ["container", "inspect", "--format", format, name]);
  if (output.exitCode !== 0)
    throw new DockerError(`The trial container ${name} is gone`, { next: "Run this again." });
  const [status, code] = output.stdout.trim().split(" ");
  if (status === "running") return undefined;
  const log = await docker(context, ["logs", "--tail", "5", name]);
  return `it ended with exit code ${code}; its log: ${lastLines(log.stdall, 5)}`;
}

/**
 * Runs `use`, which may build and start a trial in a project, and removes the trial afterwards, also after a signal. Removes first
 * what a killed doctor left. Throws what `use` throws, and DockerError.
 */
export async function withTrial(context: Context, use: (project: string) => Promise<void>): Promise<void> {
  const project = newProject(context.settings);
  const stopWatchdog = startWatchdog(context, project);
  const { commandSignal: _, ...rest } = uninterruptible(context);
  try {
    for (const left of await leftTrials(rest)) await removeTrial(rest, left);
    await use(project);
  } finally {
    await removeTrial(rest, project).finally(stopWatchdog);
  }
}
