import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Color } from "./color.ts";
import { HealthError } from "./errors.ts";
import { reusedIdleSeconds } from "./nginx/connections.ts";
import { getHostPort } from "./settings.ts";
import type { Stack } from "./stack.ts";

/** The API has to keep an idle connection for a good while longer than nginx does. */
const MARGIN = 1.5;

/** Did a response say that its connection ends with it? nginx does not keep such a connection either. */
const isAnnounced = (head: string): boolean =>
  /^connection:.*\bclose\b/im.test(head) ||
  (head.startsWith("HTTP/1.0") && !/^connection:.*\bkeep-alive\b/im.test(head));

/**
 * Sends one GET to a server on this machine and then watches the idle connection for `seconds`. Gives how many seconds after its
 * response the server closed it without having said so; undefined when it did not, or did not respond within 10 s.
 * A plain socket: HTTP clients also close by themselves, when a server tells them a time (`Keep-Alive: timeout=5`) that nginx ignores.
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
  try {
    await Promise.race([responded, closed, sleep(10_000)]);
    return await Promise.race([closed, sleep(seconds * 1000).then(() => undefined)]);
  } finally {
    socket.destroy();
  }
}

/** What `checkIdleConnections` does, for a dry run to tell. */
export const idleCommands = ({ settings }: Stack, color: Color): string[] => [
  `see whether port ${getHostPort(settings, color)} keeps an idle connection open for ${reusedIdleSeconds(settings) * MARGIN} s`,
];

/**
 * Sees whether a color keeps idle connections for longer than nginx reuses them: a POST that is sent just as the API closes is
 * lost. Throws HealthError with the time that was measured.
 */
export async function checkIdleConnections(stack: Stack, color: Color): Promise<void> {
  const { settings } = stack;
  const watched = reusedIdleSeconds(settings) * MARGIN;
  if (watched === 0) return; // nginx does not reuse them
  const seconds = await closedAfter(getHostPort(settings, color), "/health", watched);
  if (seconds === undefined) return;
  throw new HealthError(
    `The API closes idle connections sooner than API_IDLE_SECONDS=${settings.apiIdleSeconds} says`,
    {
      details: `${color} closed one after ${seconds.toFixed(2)} s, without "Connection: close" in its response: nginx would lose requests.`,
      next: "Set API_IDLE_SECONDS to the API's own idle timeout, or to 0 when it closes after each response, and run this again; nothing that serves was touched.",
    },
  );
}
