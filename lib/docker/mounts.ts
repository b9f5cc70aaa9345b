import type { Context } from "../run/context.ts";
import { docker, lastLines } from "./cli.ts";
import { FIRST_START_SECONDS } from "./services.ts";

/** A read-only bind mount for `docker run`. Docker parses it as CSV, so a comma or quote in the path needs quotes. */
export const readOnlyMount = (source: string, target: string): string[] => [
  "--mount",
  `type=bind,"source=${source.replaceAll('"', '""')}",target=${target},readonly`,
];

/** The arguments of a short-lived container of nginx's image that mounts these folders and looks for a file in the first one. */
export const mountArgs = ({ settings }: Context, folders: readonly string[], file: string): string[] => [
  ...["run", "--rm", "--network", "none"],
  ...folders.flatMap((folder, i) => readOnlyMount(folder, `/shared/${i}`)),
  ...["--entrypoint", "ls", settings.environment.NGINX_IMAGE ?? "", `/shared/0/${file}`],
];

/**
 * Runs that container, whose image may have to be pulled first. Returns why the engine cannot mount the folders, or does not
 * see the file; undefined when all is well. It lists no folder: containers can fill the vault with anything.
 * Throws DeadlineError, InterruptedError.
 */
export async function mountProblem(
  context: Context,
  folders: readonly string[],
  file: string,
): Promise<string | undefined> {
  const { signal, log } = context;
  const output = await docker(context, mountArgs(context, folders, file), {
    deadline: FIRST_START_SECONDS,
    signal,
    onLine: log.progress,
  });
  signal.throwIfAborted();
  return output.exitCode === 0 ? undefined : lastLines(output.stderr, 5);
}
