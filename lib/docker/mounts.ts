import type { Context } from "../run/context.ts";
import { docker, lastLines } from "./cli.ts";
import { FIRST_START_SECONDS } from "./services.ts";

/**
 * Lists folders of this host from inside a short-lived container of nginx's image, which may have to be pulled first. Returns
 * what `ls` prints, or why the engine cannot mount them. Throws DeadlineError.
 */
export async function listMounted(
  context: Context,
  folders: readonly string[],
): Promise<{ names: string[]; problem?: string }> {
  const { signal, log, settings } = context;
  const mounts = folders.flatMap((folder, i) => [
    "--mount",
    `type=bind,"source=${folder.replaceAll('"', '""')}",target=/shared/${i},readonly`,
  ]);
  const output = await docker(
    context,
    [
      ...["run", "--rm", "--network", "none", ...mounts, "--entrypoint", "ls"],
      ...[settings.environment.NGINX_IMAGE ?? "", "-A", ...folders.map((_, i) => `/shared/${i}`)],
    ],
    { deadline: FIRST_START_SECONDS, signal, onLine: log.progress },
  );
  signal.throwIfAborted();
  if (output.exitCode !== 0) return { names: [], problem: lastLines(output.stderr, 5) };
  return { names: output.stdout.split("\n").filter(Boolean) };
}
