import { COLORS, type Color, isColor } from "../color.ts";
import { docker } from "../docker/cli.ts";
import { followLog } from "../docker/logs.ts";
import type { Context } from "../run/context.ts";

/** One response of a color to a client, from nginx's log. */
export interface Logged {
  color: Color;
  status: number;
  /** When it ended, in ms since 1970, by the engine's clock; whole seconds. */
  atMs: number;
  /** From the first byte of the request to the last byte of the response. */
  seconds: number;
  /** What was asked: the method and path, or the MCP method and the tool. */
  what: string;
}

/** All that clients send is inside quotes. Outside, `[^"]*` keeps a long request from making the search slow. */
const LINE =
  /^\S+ \[([^\]]*)\] "([^"]*)" (\d{3}) \d+ color=(\w+) [^"]* time=([\d.]+) upstream_time=[^"]* to=(\S+) run=(\d) mcp="([^"]*)" tool="([^"]*)"$/;

/** The status of a request that a canary did not accept. The client got a response of the active color. */
const REFUSED = 502;

/**
 * Parses a line of the access log. undefined for other lines, for requests of runs, and for those that no color got. A request
 * that a canary left to the active color counts as an error of the canary. nginx escapes quotes in what clients send, so a
 * client cannot forge a field.
 */
export function parseAccess(line: string): Logged | undefined {
  const [, ended = "", request = "", status, color, time, to = "", run, method, tool] =
    line.match(LINE) ?? [];
  if (!isColor(color) || !to.startsWith("loop_api_") || run !== "0") return undefined;
  const mcp = method && method !== "-" ? `${method}${tool && tool !== "-" ? ` ${tool}` : ""}` : undefined;
  const what = mcp ?? request.replace(/ HTTP\/[\d.]+$/, "");
  const logged = { color, status: Number(status), atMs: Date.parse(ended), seconds: Number(time), what };
  const canary = COLORS.find((one) => to === `loop_api_${one}_canary`);
  return canary && canary !== color ? { ...logged, color: canary, status: REFUSED } : logged;
}

/** How far back, and how many lines, the responses before a switch are read. */
const [BEFORE_MINUTES, BEFORE_LINES] = [10, 20_000];

/** The last responses in the log; none if it cannot be read. Never throws. */
export async function recentResponses(context: Context): Promise<Logged[]> {
  const args = ["logs", "--since", `${BEFORE_MINUTES}m`, "--tail", String(BEFORE_LINES)];
  const output = await docker(context, [...args, context.settings.nginxContainer]).catch(() => undefined);
  const lines = output?.exitCode === 0 ? output.stdout.split("\n") : [];
  return lines.flatMap((line) => parseAccess(line) ?? []);
}

/** Passes on each response that is logged from now on; returns what ends that. `onEnd`: the log has ended by itself. */
export const followResponses = (
  context: Context,
  onResponse: (logged: Logged) => void,
  onEnd?: () => void,
): (() => void) => {
  const onLine = (line: string): void => {
    const logged = parseAccess(line);
    if (logged) onResponse(logged);
  };
  return followLog(context, context.settings.nginxContainer, onLine, onEnd);
};
