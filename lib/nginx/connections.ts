import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The most idle connections that each nginx worker keeps to each color. */
const IDLE_CONNECTIONS = 512;

/**
 * The longest time, in seconds, that nginx keeps one. A longer time would save few connections, and the previous release may
 * close its connections sooner than the setting of the newest says.
 */
const LONGEST_SECONDS = 1;

type Idle = Pick<Settings, "apiIdleSeconds">;

/**
 * Seconds that nginx keeps an idle connection to the API: half as long as the API does, so that nginx always closes first. A
 * POST sent just as the API closes would be lost. 0: connections are not reused.
 */
export const reusedIdleSeconds = ({ apiIdleSeconds }: Idle): number =>
  Math.min(apiIdleSeconds / 2, LONGEST_SECONDS);

/** The content of `nginx/api-connections.conf`. */
export function renderConnections(settings: Idle): string {
  const seconds = reusedIdleSeconds(settings);
  return [
    "# Written by each run from API_IDLE_SECONDS; manual changes are overwritten.",
    ...(seconds === 0
      ? ["keepalive 0;"]
      : [`keepalive ${IDLE_CONNECTIONS};`, `keepalive_timeout ${Math.round(seconds * 1000)}ms;`]),
    "",
  ].join("\n");
}

/** `nginx/api-connections.conf` for these settings. */
export const connectionsFile = (settings: Settings): GeneratedFile => ({
  file: join(settings.nginxFolder, "api-connections.conf"),
  content: renderConnections(settings),
  mode: 0o644,
});
