import type { Api } from "../api.ts";

/** The most idle connections that each nginx worker keeps to each color. */
const IDLE_CONNECTIONS = 512;

/** The longest time, in seconds, that nginx keeps one. A longer time would save few connections. */
const LONGEST_SECONDS = 1;

type Idle = Pick<Api, "idleSeconds">;

/**
 * Seconds that nginx keeps an idle connection to an API: half as long as the API does, so that nginx always closes first. A
 * POST sent just as the API closes would be lost. 0: connections are not reused.
 */
export const reusedIdleSeconds = ({ idleSeconds }: Idle): number =>
  Math.min(idleSeconds / 2, LONGEST_SECONDS);

/** The lines of an upstream that say which idle connections nginx keeps to this API. */
export function connectionLines(api: Idle): string[] {
  const seconds = reusedIdleSeconds(api);
  if (seconds === 0) return ["keepalive 0;"];
  return [`keepalive ${IDLE_CONNECTIONS};`, `keepalive_timeout ${Math.round(seconds * 1000)}ms;`];
}
