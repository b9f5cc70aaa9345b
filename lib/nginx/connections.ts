import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../atomic.ts";
import type { Settings } from "../settings.ts";
import type { Stack } from "../stack.ts";

/** Idle connections that each nginx worker keeps to each color, at most. */
const IDLE_CONNECTIONS = 512;

/** The file that nginx includes in the upstream of each color. */
export const connectionsFile = ({ nginxFolder }: Settings): string =>
  join(nginxFolder, "api-connections.conf");

/**
 * What that file says for an API that closes idle connections after `apiIdleSeconds`. nginx closes them after half of
 * that: a POST that is sent just as the API closes would be lost. With 0 no connection is reused.
 */
export const connectionsFor = ({ apiIdleSeconds }: Pick<Settings, "apiIdleSeconds">): string =>
  [
    "# Idle connections to the API. A run replaces this file when API_IDLE_SECONDS asks for another timeout.",
    ...(apiIdleSeconds === 0
      ? ["keepalive 0;"]
      : [`keepalive ${IDLE_CONNECTIONS};`, `keepalive_timeout ${Math.round(apiIdleSeconds * 500)}ms;`]),
    "",
  ].join("\n");

/** Writes that file where it says something else. nginx reads it at its start, or at the switch. Throws what the file system throws. */
export async function setConnections(stack: Stack): Promise<void> {
  const { settings } = stack;
  const [file, wanted] = [connectionsFile(settings), connectionsFor(settings)];
  if ((await readFile(file, "utf8").catch(() => "")) === wanted) return;
  await stack.step("set nginx's idle timeout for the API", () => replaceFile(file, wanted), [
    `write into ${file}: ${wanted.split("\n").slice(1).join(" ").trim()}`,
  ]);
}
