import { setTimeout as sleep } from "node:timers/promises";
import type { Color } from "../color.ts";
import { inspectColor, stopByHand } from "../engine/colors.ts";
import { InterruptedError, StopError, ToolError } from "../errors.ts";
import { type Context, tryRecord } from "../run/context.ts";
import { haveSharedWorkers } from "../run/lock.ts";
import type { RunRecord } from "../run/record.ts";
import { readKept } from "./link.ts";
import { CONNECTIONS, connectionsTo } from "./open-requests.ts";
import { readSessionUse } from "./sessions.ts";
import { shellInNginx } from "./shell.ts";
import { PROCESS_TITLES, SHUTTING_DOWN } from "./workers.ts";

/** Seconds that a worker may take to exit once it was told to close its connections. */
const WORKERS_END_SECONDS = 5;

/** Seconds after which an old worker has no idle client connection left, on which another request could arrive; see keepalive_timeout. */
const CLIENT_IDLE_SECONDS = 15;

/** The old workers. The switch waited until each of them had this title. */
const OLD_WORKERS = `${SHUTTING_DOWN} ${PROCESS_TITLES}`;

/**
 * Waits until the old workers have exited, `limit` seconds at most. Returns the pids, inside the container, of those left.
 * The loop runs inside the container: one `docker exec` per look would take a tenth of a small machine from the clients.
 */
async function waitForOldWorkers(context: Context, limit: number): Promise<string[]> {
  // -q: when a process exits during the search, grep -l reports that instead of its matches, which would end the wait.
  const wait = `timeout ${Math.max(limit, 0.1).toFixed(1)} sh -c "while grep -qs ${OLD_WORKERS}; do sleep 0.1; done"`;
  const left = await shellInNginx(
    context,
    `{ command -v grep && command -v timeout; } >/dev/null && { ${wait}; grep -ls ${OLD_WORKERS}; true; }`,
    limit,
  );
  return left.match(/\d+/g) ?? [];
}

/**
 * How many requests nginx has open on a color that it no longer serves. Each connection to that color is one request: a worker
 * in graceful shutdown closes its idle connections, and new workers have none to that color.
 */
async function openRequests(context: Context, color: Color): Promise<number> {
  const { addresses, api } = await inspectColor(context, color);
  return connectionsTo(addresses, api.port, await shellInNginx(context, `cat ${CONNECTIONS}`));
}

/** Adds to the run's count of interrupted requests. */
function recordCut(context: Context, open: number, more: Partial<RunRecord> = {}): void {
  if (open > 0) tryRecord(context, { cut: (context.lock.recorded().cut ?? 0) + open, ...more });
}

/** Reports the requests that the stop of a color will interrupt. */
function recordLeft(context: Context, color: Color, open: number, seconds: number): void {
  context.log.warn(`requests to ${color} still open after ${seconds} s: ${open}; stopping ${color}`);
  recordCut(context, open, { openOn: color });
}

/** Throws StopError in place of a DockerError: the color may not be stopped while it is unknown whether something uses it. */
async function expectAnswer<T>(context: Context, color: Color, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof ToolError) || error instanceof InterruptedError) throw error;
    throw new StopError(`Cannot tell whether ${color} is still in use, so it was not stopped`, {
      details: `${error.message}\n${error.details}`,
      next: `The other color serves. Once nginx answers again, run: ${stopByHand(context, color)}`,
    });
  }
}

/**
 * Waits until nothing uses a color: until all old nginx workers have exited, for up to DRAIN_SECONDS. Then reports the requests
 * to it that are still open and, if there are any, ends those workers, so that nginx closes the connections before the
 * container does. Workers that also serve the other color are not ended, and only requests to this color count. A color that is kept for its sessions goes on running, so its open requests may go on too.
 * The run records how many requests it interrupted. Throws StopError when the workers cannot be seen.
 */
export const drainNginx = (context: Context, color: Color): Promise<void> =>
  context.change(`drain ${color}`, () => expectAnswer(context, color, () => drain(context, color)), [
    `wait until the old nginx workers, which still use ${color}, have exited, ${context.settings.drainSeconds} s at most`,
  ]);

async function drain(context: Context, color: Color): Promise<void> {
  const { settings, log } = context;
  if (haveSharedWorkers(context.lock)) return waitForRequests(context, color);
  const deadline = performance.now() + settings.drainSeconds * 1000;
  let left: string[];
  // Only the deadline ends this while workers are left: they may still be serving, whatever else ended the wait.
  do left = await waitForOldWorkers(context, Math.max(0, deadline - performance.now()) / 1000);
  while (left.length > 0 && performance.now() < deadline);
  if (left.length === 0) return;
  if (await goesOn(context, color)) return;
  const open = await openRequests(context, color);
  // What keeps the workers are requests to the other color, such as a session's stream, or to auth.
  if (open === 0 && settings.drainSeconds > CLIENT_IDLE_SECONDS) return;
  log.warn(
    `requests to ${color} still open after ${settings.drainSeconds} s: ${open}; closing all connections of the old workers`,
  );
  await shellInNginx(context, `kill -TERM ${left.join(" ")}; true`);
  recordCut(context, open);
  await waitForOldWorkers(context, WORKERS_END_SECONDS);
}

/** Does this color keep running for its sessions? Then its open requests continue. */
async function goesOn(context: Context, color: Color): Promise<boolean> {
  if ((await readKept(context))?.color !== color || !(await readSessionUse(context, color)).created)
    return false;
  context.log.info(
    `requests to ${color} are still open; it keeps running for its sessions, so they continue`,
  );
  return true;
}

/**
 * The same for a color whose sessions end. The workers that are old now serve the other color too, so they are not ended, and
 * only requests to this color count. The caller stops it, which interrupts those that are left. Throws StopError.
 */
export const drainSessions = (context: Context, color: Color): Promise<void> =>
  context.change(
    `drain ${color}`,
    () => expectAnswer(context, color, () => waitForRequests(context, color)),
    [`wait until the requests to ${color} have ended, ${context.settings.drainSeconds} s at most`],
  );

/** Waits until no idle client connection of old workers can bring another request, then until the requests have ended. */
async function waitForRequests(context: Context, color: Color): Promise<void> {
  const seconds = Math.max(context.settings.drainSeconds, CLIENT_IDLE_SECONDS + 1);
  const deadline = performance.now() + seconds * 1000;
  const left = await waitForOldWorkers(context, CLIENT_IDLE_SECONDS + 1);
  if (left.length > 0 && (await goesOn(context, color))) return;
  let open = left.length > 0 ? await openRequests(context, color) : 0;
  for (; open > 0 && performance.now() < deadline; open = await openRequests(context, color))
    await sleep(1000);
  if (open > 0) recordLeft(context, color, open, seconds);
}
