import type { Color } from "../color.ts";
import { containerOf, inspectColor } from "../docker/container.ts";
import { execInNginx } from "../docker/frontdoor.ts";
import { DockerError, StopError } from "../errors.ts";
import type { Stack } from "../stack.ts";
import { ENDING, TITLES } from "./workers.ts";

/** How long, in seconds, a worker may take to end once it was told to close what it has open. */
const WORKERS_END_SECONDS = 5;

const ESTABLISHED = "01";

/** Runs a shell line in nginx's container that must succeed for anything to be known, in `limit` seconds. Throws DockerError. */
async function shell(stack: Stack, line: string, limit?: number): Promise<string> {
  const output = await execInNginx(stack, ["sh", "-c", line], limit);
  if (output.exitCode === 0) return output.stdout;
  throw new DockerError("nginx's container does not answer", { details: output.stderr.trim(), next: "" });
}

/** The workers of before the switch; it has seen to it that each of them has this title. */
const OLD_WORKERS = `${ENDING} ${TITLES}`;

/**
 * Waits for old workers to end, `limit` seconds at most; gives the pids, inside the container, of those that are left.
 * It waits in there: a `docker exec` for each look takes a tenth of a small machine from those who are being served.
 */
async function awaitOldWorkers(stack: Stack, limit: number): Promise<string[]> {
  // -q: when any process ends while it looks, grep -l reports that instead of what it found, and the wait would be over.
  const wait = `timeout ${Math.max(limit, 0.1).toFixed(1)} sh -c "while grep -qs ${OLD_WORKERS}; do sleep 0.1; done"`;
  const left = await shell(
    stack,
    `{ command -v grep && command -v timeout; } >/dev/null && { ${wait}; grep -ls ${OLD_WORKERS}; true; }`,
    limit,
  );
  return left.match(/\d+/g) ?? [];
}

/**
 * How many requests nginx has open on a color that it no longer serves. Each connection to it is one: a worker closes its idle
 * connections when it begins to shut down and keeps none after that, and new workers have none to that color.
 */
async function openRequests(stack: Stack, color: Color): Promise<number> {
  const { addresses } = await inspectColor(stack, color);
  // The kernel's table has addresses as hexadecimal, last byte first: 172.18.0.3:8081 is 030012AC:1F91.
  const remotes = addresses.map((address) => {
    const bytes = address
      .split(".")
      .reverse()
      .map((byte) => Number(byte).toString(16).padStart(2, "0"));
    return `${bytes.join("")}:1F91`.toUpperCase();
  });
  const rows = (await shell(stack, "cat /proc/net/tcp")).split("\n").map((row) => row.trim().split(/\s+/));
  return rows.filter(([, , remote, state]) => state === ESTABLISHED && remotes.includes(remote ?? "")).length;
}

/** Adds to what the run tells at its end. A note that cannot be written is no reason to leave the color running. */
function noteCut({ lock, log }: Stack, open: number): void {
  try {
    if (open > 0) lock.note({ cut: (lock.noted().cut ?? 0) + open });
  } catch (error) {
    log.warn(`the lock file could not be written: ${error}`);
  }
}

/**
 * Waits until nothing uses a color any more: until no nginx worker of before the switch is left, DRAIN_SECONDS at most.
 * Then says how many requests are still open, and ends those workers, so that nginx closes before the container does.
 * Gives how many requests it cut, and notes them: they belong to the outcome of the run. Throws StopError when it cannot see.
 */
export async function drainNginx(stack: Stack, color: Color): Promise<number> {
  const { settings, log } = stack;
  try {
    const deadline = performance.now() + settings.drainSeconds * 1000;
    let left: string[];
    // Only the limit ends it while there are some: whatever else ended the wait, they may still be serving.
    do left = await awaitOldWorkers(stack, Math.max(0, deadline - performance.now()) / 1000);
    while (left.length > 0 && performance.now() < deadline);
    if (left.length === 0) return 0;
    const open = await openRequests(stack, color);
    log.warn(
      `${open} requests are still with ${color} after ${settings.drainSeconds} s: closing them and what else the old workers have open`,
    );
    await shell(stack, `kill -TERM ${left.join(" ")}; true`);
    noteCut(stack, open);
    await awaitOldWorkers(stack, WORKERS_END_SECONDS);
    return open;
  } catch (error) {
    if (!(error instanceof DockerError)) throw error;
    throw new StopError(`Cannot see whether ${color} is still used, so it was not stopped`, {
      details: `${error.message}\n${error.details}`,
      next: `The other color serves. When nginx is well again, run: ${settings.dockerCmd} stop ${containerOf(settings, color)}`,
    });
  }
}
