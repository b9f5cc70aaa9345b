import type { Api } from "../api.ts";
import { AuthorizationNeededError, McpError } from "../errors.ts";
import { useServer } from "../mcp/client.ts";
import { closedAfter, watchedSeconds } from "../release/idle-connections.ts";
import { type Context, pause } from "../run/context.ts";
import { probeHealth } from "../util/http-probe.ts";
import { ok, problem, type Verdict, warning } from "./finding.ts";
import type { Trial } from "./trial.ts";

/** Where MCP servers usually answer. */
const MCP_PATH = "/mcp";

/** Milliseconds between two probes. */
const PROBE_EVERY_MS = 250;

/** Probes between two looks at the container, each of which takes as long as several probes. */
const PROBES_PER_LOOK = 4;

/** Waits until a trial is healthy, as long as a release waits. Throws DockerError, InterruptedError. */
export async function checkHealth(context: Context, { port, ending }: Trial): Promise<Verdict> {
  const { api, health, vaultPath } = context.settings;
  const { retries, interval, timeout } = health;
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  for (let probes = 1; ; probes++) {
    const ended = probes % PROBES_PER_LOOK === 1 ? await ending() : undefined;
    if (ended !== undefined) return problem(ended, "Fix what its log shows.");
    const { healthy, finding } = await probeHealth(
      `http://127.0.0.1:${port}${api.healthPath}`,
      () => api.expect,
      timeout,
    );
    if (healthy) return ok(`healthy after ${seconds().toFixed(1)} s: ${finding}`);
    if (seconds() > retries * interval)
      return problem(
        `not healthy within ${retries * interval} s; GET ${api.healthPath} on port ${api.port} returned: ${finding}`,
        finding.includes("vault not accessible") && vaultPath !== undefined
          ? "Check that the container may read VAULT_PATH."
          : `${expectedInWords(api)} Correct API_PORT, HEALTH_PATH or HEALTH_EXPECT, or the API. If it is only slow, raise HEALTH_RETRIES.`,
      );
    await pause(context, PROBE_EVERY_MS);
  }
}

const expectedInWords = ({ expect }: Api): string =>
  Object.keys(expect).length === 0
    ? "A release needs a 2xx status."
    : `A release needs a 2xx status and JSON that contains ${JSON.stringify(expect)} (HEALTH_EXPECT).`;

/** The longest idle time that is measured, in seconds. */
const LONGEST_WATCH = 5;

/** The API must keep an idle connection as long as API_IDLE_SECONDS says. */
export async function checkIdle({ settings }: Context, { port }: Trial): Promise<Verdict> {
  const { api } = settings;
  const needed = watchedSeconds(api);
  if (needed === 0) return ok("API_IDLE_SECONDS=0: nginx does not reuse connections");
  const watched = Math.min(Math.max(api.idleSeconds, needed), LONGEST_WATCH);
  const seconds = await closedAfter(port, api.healthPath, watched);
  if (seconds === undefined) return ok(`an idle connection stayed open for ${watched} s`);
  return idleVerdict(seconds, needed, api.idleSeconds);
}

/** The verdict for an API that closed an idle connection after `seconds`; a release requires `needed`. */
export function idleVerdict(seconds: number, needed: number, setting: number): Verdict {
  const value = Math.floor(seconds * 10) / 10;
  const say = seconds < needed ? problem : warning;
  return say(
    `the API closed an idle connection after ${seconds.toFixed(2)} s; API_IDLE_SECONDS=${setting} says that it keeps it open longer`,
    `Set API_IDLE_SECONDS=${value}, or let the API keep idle connections open longer.`,
  );
}

/** Seconds for an answer to `initialize`. */
const MCP_SECONDS = 10;

/**
 * Does the API keep MCP sessions? Information only. Only `initialize` can start one; a server without `initialize` has no sessions.
 */
export async function checkSessions(context: Context, { port }: Trial): Promise<Verdict> {
  const endpoint = new URL(`http://127.0.0.1:${port}${MCP_PATH}`);
  const { sessionSeconds } = context.settings;
  const connect = (initialize: boolean): Promise<Verdict> =>
    useServer(
      endpoint,
      { seconds: MCP_SECONDS, initialize },
      context.log.warn,
      async ({ keepsSession, description }) =>
        ok(
          keepsSession
            ? `${description}, keeps sessions: after a switch, the previous color serves them for up to SESSION_SECONDS=${sessionSeconds}`
            : `${description}, no sessions`,
        ),
    );
  try {
    return await connect(true).catch((error) => {
      if (error instanceof AuthorizationNeededError || !(error instanceof McpError)) throw error;
      return connect(false);
    });
  } catch (error) {
    if (!(error instanceof McpError)) throw error;
    if (/HTTP 40[45]\b/.test(error.message)) return ok(`no MCP server at ${MCP_PATH}`);
    return ok(`unknown: ${error.message}`);
  }
}
