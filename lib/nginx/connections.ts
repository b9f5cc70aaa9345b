import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { Written } from "./written.ts";

/** Idle connections that each nginx worker keeps to each color, at most. */
const IDLE_CONNECTIONS = 512;

/**
 * What nginx reads of API_IDLE_SECONDS. It closes an idle connection after half of that, before the API does: a POST that is sent
 * just as the API closes would be lost. With 0 no connection is reused.
 */
export const renderConnections = ({ apiIdleSeconds }: Pick<Settings, "apiIdleSeconds">): string =>
  [
    "# Written by each run from API_IDLE_SECONDS; what is changed here by hand is replaced.",
    ...(apiIdleSeconds === 0
      ? ["keepalive 0;"]
      : [`keepalive ${IDLE_CONNECTIONS};`, `keepalive_timeout ${Math.round(apiIdleSeconds * 500)}ms;`]),
    "",
  ].join("\n");

/** `nginx/api-connections.conf` as the settings want it. */
export const connectionsFile = (settings: Settings): Written => ({
  file: join(settings.nginxFolder, "api-connections.conf"),
  content: renderConnections(settings),
  mode: 0o644,
});
