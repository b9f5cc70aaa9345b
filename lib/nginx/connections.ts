import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { Written } from "./written.ts";

/** Idle connections that each nginx worker keeps to each color, at most. */
const IDLE_CONNECTIONS = 512;

/**
 * How long, in seconds, nginx keeps one at most. More would save few connections, and would be wrong for a color of before that
 * closes sooner than the newest: the setting is one, the colors are two.
 */
const LONGEST_SECONDS = 1;

type Idle = Pick<Settings, "apiIdleSeconds">;

/**
 * How long, in seconds, nginx keeps an idle connection to the API: half as long as the API does, so that nginx is the one to close
 * it. A POST that is sent just as the API closes would be lost. 0: no connection is reused.
 */
export const reusedIdleSeconds = ({ apiIdleSeconds }: Idle): number =>
  Math.min(apiIdleSeconds / 2, LONGEST_SECONDS);

/** What nginx reads of API_IDLE_SECONDS. */
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

/** `nginx/api-connections.conf` as the settings want it. */
export const connectionsFile = (settings: Settings): Written => ({
  file: join(settings.nginxFolder, "api-connections.conf"),
  content: renderConnections(settings),
  mode: 0o644,
});
