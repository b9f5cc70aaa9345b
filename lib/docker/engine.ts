import { ComposeFileError, DockerError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { checkComposeFiles } from "../settings.ts";
import { isAtLeast } from "../util/version.ts";
import { CHECK_DOCKER, compose, docker, expectSuccess, lastLines } from "./cli.ts";

/** Fails unless the engine answers. Returns its version. Throws DockerError. */
export async function expectEngine(context: Context): Promise<string> {
  const engine = await docker(context, ["version", "--format", "{{.Server.Version}}"]);
  if (engine.exitCode === 0) return engine.stdout.trim();
  const { dockerCmd, environment } = context.settings;
  // They decide where docker looks for the engine, and may be a leftover in a shell profile or in .env.blue-green.
  const chosen = ["DOCKER_HOST", "DOCKER_CONTEXT"].filter((name) => environment[name]);
  const suspects = ["DOCKER_CMD", ...chosen.map((name) => `${name}, which is ${environment[name]}`)];
  throw new DockerError(`Docker is not reachable with ${dockerCmd}`, {
    details: lastLines(engine.stderr, 5),
    next: `Start Docker (on a Mac: Docker Desktop, or colima start; on the NAS: Container Manager), run this as a user with access to it, or correct ${suspects.join(", or ")}.`,
  });
}

/** `expectEngine` as a step. Throws DockerError. */
export const checkEngine = async (context: Context): Promise<void> =>
  void (await context.inspect("check Docker", () => expectEngine(context)));

/**
 * Fails unless Compose 2.20 or newer is there and can read the compose files. Starting an existing container needs neither.
 * Returns its version. Throws DockerError, ComposeFileError, and UsageError when containers can write to a compose file.
 */
export async function expectCompose(context: Context): Promise<string> {
  checkComposeFiles(context.settings);
  const [plugin, config] = await Promise.all([
    docker(context, ["compose", "version", "--short"]),
    docker(context, compose(context, "config", "--quiet")),
  ]);
  if (plugin.exitCode !== 0 || !isAtLeast(plugin.stdout, [2, 20])) {
    throw new DockerError(
      `Docker Compose v2 is missing or too old (${plugin.stdout.trim() || "none"}; 2.20 or newer is needed)`,
      {
        next: "Update Container Manager on the NAS. Elsewhere, install the Compose plugin: https://docs.docker.com/compose/install/ (on a Mac with colima: docs/macos.md)",
      },
    );
  }
  if (config.exitCode === 0) return plugin.stdout.trim();
  throw new ComposeFileError(`Compose cannot read ${context.settings.composeFiles.join(", ")}`, {
    details: lastLines(config.stderr, 10),
    next: "Correct the file, or COMPOSE_FILE. Nothing was changed.",
  });
}

/** `expectCompose` as a step. Throws what `expectCompose` throws. */
export const checkCompose = async (context: Context): Promise<void> =>
  void (await context.inspect("check Compose", () => expectCompose(context)));

/** The engine's data directory. Throws DeadlineError. */
export async function dataFolder(context: Context): Promise<string> {
  return (await docker(context, ["info", "--format", "{{.DockerRootDir}}"])).stdout.trim();
}

/** The running container that publishes a host port, if any. Throws DockerError. */
export async function containerOnPort(context: Context, port: number): Promise<string | undefined> {
  const output = await docker(context, ["ps", "--filter", `publish=${port}`, "--format", "{{.Names}}"]);
  expectSuccess(output, "listing containers", CHECK_DOCKER);
  return output.stdout.trim().split("\n")[0] || undefined;
}
