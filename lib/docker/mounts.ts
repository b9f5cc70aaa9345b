import type { Context } from "../run/context.ts";
import { docker, lastLines } from "./cli.ts";
import { FIRST_START_SECONDS } from "./services.ts";

/** The arguments of a short-lived container of nginx's image that mounts these folders and looks for a file in the first one. */
export const mountArgs = ({ settings }: Context, folders: readonly string[], file: string): string[] => [
  ...["run", "--rm", "--network", "none"],
  ...folders.flatMap((folder, i) => [
    "--mount",
    `type=bind,"source=${folder.replaceAll('"', '""')}",target=/shared/${i},readonly`,
  ]),
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
