import { execInNginx } from "../docker/services.ts";
import { DockerError } from "../errors.ts";
import type { Context } from "../run/context.ts";

/**
 * Runs a shell line in nginx's container that takes `limit` seconds at most; returns its output. Throws DockerError when it
 * fails.
 */
export async function shellInNginx(context: Context, line: string, limit?: number): Promise<string> {
  const output = await execInNginx(context, ["sh", "-c", line], limit);
  if (output.exitCode === 0) return output.stdout;
  throw new DockerError("nginx's container does not answer", { details: output.stderr.trim(), next: "" });
}
