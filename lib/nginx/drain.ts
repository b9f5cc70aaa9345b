import type { Color } from "../color.ts";
import { inspectColor } from "../docker/container.ts";
import { containerOf } from "../docker/names.ts";
import { execInNginx } from "../docker/services.ts";
import { DockerError, StopError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { PROCESS_TITLES, SHUTTING_DOWN } from "./workers.ts";

/** Seconds that a worker may take to exit once it was told to close its connections. */
const WORKERS_END_SECONDS = 5;

const ESTABLISHED = "01";

/** Runs a shell line in nginx's container that takes `limit` seconds at most. Throws DockerError when it fails. */
async function shell(context: Context, line: string, limit?: number): Promise<string> {
  const output = await execInNginx(context, ["sh", "-c", line], limit);
  if (output.exitCode === 0) return output.stdout;
  throw new DockerError("nginx's container does not answer", { details: output.stderr.trim(), next: "" });
}

/** The old workers. The switch waited until each of them had this title. */
const OLD_WORKERS = `${SHUTTING_DOWN} ${PROCESS_TITLES}`;

/**
 * Waits until the old workers have exited, `limit` seconds at most. Returns the pids, inside the container, of those left.
 * The loop runs inside the container: one `docker exec` per look would take a tenth of a small machine from the clients.
 */
async function waitForOldWorkers(context: Context, limit: number): Promise<string[]> {
  // -q: when a process exits during the search, grep -l reports that instead of its matches, which would end the wait.
  const wait = `timeout ${Math.max(limit, 0.1).toFixed(1)} sh -c "while grep -qs ${OLD_WORKERS}; do sleep 0.1; done"`;
  const left = await shell(
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
  const { addresses } = await inspectColor(context, color);
  // The kernel's table has hexadecimal addresses, last byte first: 172.18.0.3:8081 is 030012AC:1F91.
  const remotes = addresses.map((address) => {
    const bytes = address
      .split(".")
      .reverse()
      .map((byte) => Number(byte).toString(16).padStart(2, "0"));
    return `${bytes.join("")}:1F91`.toUpperCase();
  });
  const rows = (await shell(context, "cat /proc/net/tcp")).split("\n").map((row) => row.trim().split(/\s+/));
  return rows.filter(([, , remote, state]) => state === ESTABLISHED && remotes.includes(remote ?? "")).length;
}

/** Adds to the run's count of interrupted requests. A full disk is no reason to leave the color running. */
function recordCut({ lock, log }: Context, open: number): void {
  try {
    if (open > 0) lock.record({ cut: (lock.recorded().cut ?? 0) + open });
  } catch (error) {
    log.warn(`the lock file could not be written: ${error}`);
  }
}

/**
 * Waits until nothing uses a color: until all old nginx workers have exited, DRAIN_SECONDS at most. Then reports the requests
 * that are still open and ends those workers, so that nginx closes the connections before the container does.
 * The run records how many requests it interrupted. Throws StopError when the workers cannot be seen.
 */
export const drainNginx = (context: Context, color: Color): Promise<void> =>
  context.change(`drain ${color}`, () => drain(context, color), [
    `wait until the old nginx workers, which still use ${color}, have exited, ${context.settings.drainSeconds} s at most`,
  ]);

async function drain(context: Context, color: Color): Promise<void> {
  const { settings, log } = context;
  try {
    const deadline = performance.now() + settings.drainSeconds * 1000;
    let left: string[];
    // Only the deadline ends this while workers are left: they may still be serving, whatever else ended the wait.
    do left = await waitForOldWorkers(context, Math.max(0, deadline - performance.now()) / 1000);
    while (left.length > 0 && performance.now() < deadline);
    if (left.length === 0) return;
    const open = await openRequests(context, color);
    log.warn(
      `requests to ${color} still open after ${settings.drainSeconds} s: ${open}; closing all connections of the old workers`,
    );
    await shell(context, `kill -TERM ${left.join(" ")}; true`);
    recordCut(context, open);
    await waitForOldWorkers(context, WORKERS_END_SECONDS);
  } catch (error) {
    if (!(error instanceof DockerError)) throw error;
    throw new StopError(`Cannot tell whether ${color} is still in use, so it was not stopped`, {
      details: `${error.message}\n${error.details}`,
      next: `The other color serves. Once nginx answers again, run: ${settings.dockerCmd} stop ${containerOf(settings, color)}`,
    });
  }
}
