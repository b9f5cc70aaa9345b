import { setTimeout as sleep } from "node:timers/promises";
import type { Color } from "./color.ts";
import { HealthError } from "./errors.ts";
import { getHostPort } from "./settings.ts";
import type { Stack } from "./stack.ts";

/** nginx closes idle connections after half of API_IDLE_SECONDS; the API has to keep them for a good while longer. */
const WATCHED_SHARE = 0.75;

/**
 * Sends one GET and then watches the idle connection for `seconds`. Gives how many seconds it took the server to close it
 * without having said so (`Connection: close`); undefined when it did not. Throws when there is no response.
 */
export async function closedAfter(url: string, seconds: number): Promise<number | undefined> {
  const { Client } = await import("undici"); // late: see lib/health.ts
  const { origin, pathname } = new URL(url);
  const client = new Client(origin, { keepAliveTimeout: 86_400_000, keepAliveTimeoutThreshold: 0 });
  let answered = 0;
  const closed = new Promise<number>((resolve) => {
    client.on("disconnect", (_, __, { code }) => {
      // Anything else is the client itself, which was told that the connection ends.
      if (code === "UND_ERR_SOCKET" && answered > 0) resolve((performance.now() - answered) / 1000);
    });
  });
  try {
    const { body } = await client.request({ path: pathname, method: "GET", headersTimeout: 10_000 });
    answered = performance.now();
    await body.dump();
    return await Promise.race([closed, sleep(seconds * 1000).then(() => undefined)]);
  } finally {
    await client.destroy();
  }
}

/** What `checkIdleConnections` does, for a dry run to tell. */
export const idleCommands = ({ settings }: Stack, color: Color): string[] => [
  `see whether port ${getHostPort(settings, color)} keeps an idle connection open for ${settings.apiIdleSeconds * WATCHED_SHARE} s`,
];

/**
 * Sees whether a color keeps idle connections for as long as API_IDLE_SECONDS says: nginx reuses them, and loses a POST that it
 * sends just as the API closes. Throws HealthError with the time that was measured.
 */
export async function checkIdleConnections(stack: Stack, color: Color): Promise<void> {
  const { settings } = stack;
  const { apiIdleSeconds } = settings;
  if (apiIdleSeconds === 0) return; // nginx does not reuse them
  const url = `http://127.0.0.1:${getHostPort(settings, color)}/health`;
  const seconds = await closedAfter(url, apiIdleSeconds * WATCHED_SHARE).catch(() => undefined);
  if (seconds === undefined) return;
  throw new HealthError(
    `The API closes idle connections sooner than API_IDLE_SECONDS=${apiIdleSeconds} says`,
    {
      details: `${color} closed one after ${seconds.toFixed(2)} s, without "Connection: close" in its response: nginx would lose requests.`,
      next: "Set API_IDLE_SECONDS to the API's own idle timeout, or to 0 when it closes after each response, and run this again; nothing that serves was touched.",
    },
  );
}
