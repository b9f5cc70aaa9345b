import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Api } from "../api.ts";
import type { Color } from "../color.ts";
import { readApis } from "../engine/apis.ts";
import { inspectColor, logsCommand } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import { HealthError } from "../errors.ts";
import { reusedIdleSeconds } from "../nginx/connections.ts";
import { closedForNginx } from "../nginx/idle.ts";
import type { Context } from "../run/context.ts";

/** The API has to keep an idle connection this many times longer than nginx does. */
const MARGIN = 1.5;

/** The seconds for which a release watches an idle connection of a new color; 0 when nginx does not reuse connections. */
export const watchedSeconds = (api: Pick<Api, "idleSeconds">): number => reusedIdleSeconds(api) * MARGIN;

/** Does a response announce that its connection ends with it? nginx does not reuse such a connection. */
const isAnnounced = (head: string): boolean =>
  /^connection:.*\bclose\b/im.test(head) ||
  (head.startsWith("HTTP/1.0") && !/^connection:.*\bkeep-alive\b/im.test(head));

/**
 * Sends one GET to a server on this machine, then watches the idle connection for `seconds`. Returns the seconds after its
 * response at which the server closed it unannounced; undefined when it did not, or did not respond within 10 s.
 * It is a plain socket, because HTTP clients also close by themselves: they honor `Keep-Alive: timeout=5`, nginx does not.
 */
export async function closedAfter(port: number, path: string, seconds: number): Promise<number | undefined> {
  const socket = connect(port, "127.0.0.1");
  let [head, last] = ["", 0];
  const responded = new Promise<void>((resolve) => {
    socket.on("data", (chunk) => {
      head = (head + chunk.toString("latin1")).slice(0, 16_384);
      last = performance.now();
      resolve();
    });
  });
  const closed = new Promise<number | undefined>((resolve) => {
    const end = () => resolve(last > 0 && !isAnnounced(head) ? (performance.now() - last) / 1000 : undefined);
    socket.on("end", end).on("error", end);
  });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  const timers = new AbortController();
  const after = (ms: number): Promise<undefined> =>
    sleep(ms, undefined, { signal: timers.signal }).catch(() => undefined);
  try {
    await Promise.race([responded, closed, after(10_000)]);
    return await Promise.race([closed, after(seconds * 1000)]);
  } finally {
    timers.abort(); // a pending timer would keep the run alive after its last step
    socket.destroy();
  }
}

/** What `closedAfter` returns, for a color: on its port or, if it has none, for a connection from nginx. */
async function closedBy(
  context: Context,
  color: Color,
  port: number | undefined,
  seconds: number,
): Promise<number | undefined> {
  const api = readApis(context.settings)[color];
  if (port !== undefined) return closedAfter(port, api.healthPath, seconds);
  const [address = ""] = (await inspectColor(context, color)).addresses;
  const closed = await closedForNginx(context, address, api.port, api.healthPath, seconds);
  if (closed === "unknown")
    context.log.warn("the idle connections were not checked: nginx's image has no bash");
  if (closed === "refused")
    throw new HealthError(`${color} accepts no connection from nginx`, {
      details: `Asked at ${address}:${api.port}, to see how long it keeps idle connections.`,
      next: `See its log: ${logsCommand(context, color)}. The serving color was not touched.`,
    });
  if (closed === undefined || closed === "unknown" || isAnnounced(closed.head)) return undefined;
  return closed.seconds;
}

/**
 * Checks that a color keeps idle connections longer than nginx reuses them: a POST sent just as the API closes would be lost.
 * Throws HealthError with the measured time.
 */
export const checkIdleConnections = (context: Context, color: Color): Promise<void> => {
  const { settings } = context;
  const port = engineOf(context).portOf(context, color);
  const watched = watchedSeconds(settings.api);
  const check = async (): Promise<void> => {
    if (watched === 0) return; // nginx does not reuse connections
    const seconds = await closedBy(context, color, port, watched);
    if (seconds === undefined) return;
    throw new HealthError(
      `The API closes idle connections sooner than API_IDLE_SECONDS=${settings.api.idleSeconds} says`,
      {
        details: `${color} closed one after ${seconds.toFixed(2)} s, without "Connection: close" in its response: nginx would lose requests.`,
        next: "Set API_IDLE_SECONDS to the API's own idle timeout, or to 0 if it closes after each response, and run this again; the serving color was not touched.",
      },
    );
  };
  return context.change(`check the idle connections of ${color}`, check, [
    `see whether ${port === undefined ? color : `port ${port}`} keeps an idle connection open for ${watched} s`,
  ]);
};
