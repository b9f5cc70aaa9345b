import { readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { quote } from "zx/core";
import { replaceLink } from "./atomic.ts";
import { type Color, isColor } from "./color.ts";
import { containerOf, execInNginx, inspectColor, startFrontDoor } from "./docker.ts";
import { NginxReloadError, StopError, VerifyError } from "./errors.ts";
import { type Answer, probeHealth } from "./health.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";

const CONFIGURATION = "/etc/nginx/nginx-blue-green.conf";
/** How long, in seconds, nginx may take from the signal to serving with the new upstream. */
const RELOAD_SECONDS = 10;
/** Old and new workers both accept for 100 ms: this many new answers in a row, 100 ms apart, and the old ones are done. */
const ANSWERS_IN_A_ROW = 3;

const ESTABLISHED = "01";
const DRAIN_POLL_MS = 100;
/** How long, in seconds, a worker may take to end once it was told to close what it has open. */
const WORKERS_END_SECONDS = 5;

const upstreamOf = (color: Color): string => `${color}-upstream.conf`;
const activeUpstream = ({ nginxFolder }: Settings): string => join(nginxFolder, "active-upstream.conf");

/** Asks /health as a client would, through nginx. Never throws. */
const askFrontDoor = ({ nginxPort, health }: Settings): Promise<Answer> =>
  probeHealth(`http://127.0.0.1:${nginxPort}/health`, health.timeout);

/** Which colour serves, proven by a healthy answer through nginx; undefined when none does. */
export async function servingColor({ settings }: Stack): Promise<Color | undefined> {
  const { healthy, color } = await askFrontDoor(settings);
  return healthy && isColor(color) ? color : undefined;
}

/**
 * Brings up nginx and auth where they do not run, and waits, RELOAD_SECONDS at most, until nginx answers:
 * asked too early what serves, it would seem that nothing does. Throws DockerError.
 */
export async function bringUpFrontDoor(stack: Stack): Promise<void> {
  if (!(await startFrontDoor(stack))) return;
  const deadline = performance.now() + RELOAD_SECONDS * 1000;
  while ((await askFrontDoor(stack.settings)).color === undefined && performance.now() < deadline)
    await sleep(100);
}

/**
 * In one command, since each into the container takes its time; process 1 is nginx's master.
 * The test comes first: a reload that is refused says so only in the log.
 */
const TEST_AND_RELOAD = `nginx -t -q -c ${CONFIGURATION} && kill -HUP 1`;

/** Tests and reloads in one command, then asks until nginx says that it has loaded the colour. Throws a plain Error with what it saw. */
async function reloadInto(stack: Stack, color: Color): Promise<void> {
  const reload = await execInNginx(stack, ["sh", "-c", TEST_AND_RELOAD]);
  if (reload.exitCode !== 0) throw new Error(reload.stderr.trim());
  const deadline = performance.now() + RELOAD_SECONDS * 1000;
  for (let inARow = 0; inARow < ANSWERS_IN_A_ROW; await sleep(100)) {
    const answer = await askFrontDoor(stack.settings);
    inARow = answer.color === color ? inARow + 1 : 0;
    if (performance.now() > deadline) {
      throw new Error(
        `after ${RELOAD_SECONDS} s nginx still says ${answer.color ?? "no colour"} (${answer.finding})`,
      );
    }
  }
}

/**
 * Spec `switch_nginx`: points the active upstream at a colour, tests, reloads, and sees nginx run with it.
 * Throws NginxReloadError when any of that fails; the old link is back before it does.
 */
export async function switchNginx(stack: Stack, color: Color): Promise<void> {
  const { settings } = stack;
  const link = activeUpstream(settings);
  const before = await readlink(link).catch(() => undefined);
  await replaceLink(link, upstreamOf(color));
  try {
    await reloadInto(stack, color);
  } catch (error) {
    await (before === undefined ? rm(link) : replaceLink(link, before));
    // A reload that only came late would still bring the new colour: the last word must be the old link's.
    await execInNginx(stack, ["sh", "-c", TEST_AND_RELOAD]);
    const exec = `${settings.dockerCmd} exec ${settings.nginxContainer}`;
    throw new NginxReloadError("Nginx reload failed, manual intervention required", {
      details: error instanceof Error ? error.message : String(error),
      next: `See what nginx says with: ${exec} nginx -t -c ${CONFIGURATION}
Mend it, then switch by hand with: ln -sfn ${upstreamOf(color)} ${quote(link)} && ${exec} sh -c '${TEST_AND_RELOAD}'
The link is back on what it was; ${color} keeps running.`,
    });
  }
}

/**
 * Spec `verify_nginx_traffic`: asks through nginx every second for `duration` seconds (VERIFY_SECONDS; at least once).
 * Throws VerifyError at the first answer that is not healthy or not by the colour.
 */
export async function verifyNginxTraffic(
  stack: Stack,
  color: Color,
  duration = stack.settings.verifySeconds,
): Promise<void> {
  for (let second = 0; ; second++) {
    const answer = await askFrontDoor(stack.settings);
    if (!answer.healthy || answer.color !== color) {
      throw new VerifyError(`Verification through nginx failed after ${second} s`, {
        details: `Expected a healthy answer by ${color}, got one by ${answer.color ?? "nobody"}: ${answer.finding}`,
        next: `Traffic goes back. See why ${color} failed in its log, mend it and run this again.`,
      });
    }
    if (second >= duration) return;
    await sleep(1000);
  }
}

/** Runs a shell line in nginx's container that must succeed for anything to be known. Throws StopError. */
async function look(stack: Stack, line: string, color: Color): Promise<string> {
  const output = await execInNginx(stack, ["sh", "-c", line]);
  if (output.exitCode === 0) return output.stdout;
  throw new StopError(`Cannot see whether ${color} is still used, so it was not stopped`, {
    details: output.stderr.trim(),
    next: `The other color serves. When nginx is well again, run: ${stack.settings.dockerCmd} stop ${containerOf(stack.settings, color)}`,
  });
}

/** The pids, inside its container, of nginx's workers of before a reload. Their titles tell, and need no ps on either side. */
async function oldWorkers(stack: Stack, color: Color): Promise<string[]> {
  const files = await look(stack, "grep -ls '[s]hutting down' /proc/[0-9]*/cmdline; true", color);
  return files.match(/\d+/g) ?? [];
}

/** How many requests nginx has open on a colour: with `keepalive 0` each connection to it is one. */
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
  const rows = (await look(stack, "cat /proc/net/tcp", color))
    .split("\n")
    .map((row) => row.trim().split(/\s+/));
  return rows.filter(([, , remote, state]) => state === ESTABLISHED && remotes.includes(remote ?? "")).length;
}

/** Waits for old workers to end, `limit` seconds at most; tells which are left. */
async function awaitOldWorkers(stack: Stack, color: Color, limit: number): Promise<string[]> {
  const deadline = performance.now() + limit * 1000;
  for (;;) {
    const left = await oldWorkers(stack, color);
    if (left.length === 0 || performance.now() >= deadline) return left;
    await sleep(DRAIN_POLL_MS);
  }
}

/**
 * Waits until nothing uses a colour any more: until no nginx worker of before the switch is left, DRAIN_SECONDS at most.
 * Then says how many requests are still open, and ends those workers, so that nginx closes before the container does.
 * Throws StopError when it cannot see.
 */
export async function drainNginx(stack: Stack, color: Color): Promise<void> {
  const { drainSeconds } = stack.settings;
  const left = await awaitOldWorkers(stack, color, drainSeconds);
  if (left.length === 0) return;
  const open = await openRequests(stack, color);
  stack.log.warn(`${open} requests are still open on ${color} after ${drainSeconds} s: closing them`);
  await look(stack, `kill -TERM ${left.join(" ")}; true`, color);
  await awaitOldWorkers(stack, color, WORKERS_END_SECONDS);
}
