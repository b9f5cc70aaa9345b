import { readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { replaceLink } from "./atomic.ts";
import { type Color, isColor } from "./color.ts";
import { execInNginx, signalNginx, startFrontDoor } from "./docker.ts";
import { NginxReloadError, VerifyError } from "./errors.ts";
import { type Answer, probeHealth } from "./health.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";

const CONFIGURATION = "/etc/nginx/nginx-blue-green.conf";
/** How long, in seconds, nginx may take from the signal to serving with the new upstream. */
const RELOAD_SECONDS = 10;
/** Old and new workers both accept for 100 ms: this many new answers in a row, 100 ms apart, and the old ones are done. */
const ANSWERS_IN_A_ROW = 3;

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

async function testConfiguration(stack: Stack): Promise<void> {
  const test = await execInNginx(stack, ["nginx", "-t", "-q", "-c", CONFIGURATION]);
  if (test.exitCode !== 0) throw new Error(`nginx -t: ${test.stderr.trim()}`);
}

/** Reloads, and asks until nginx says it has loaded the colour: the signal succeeds even where the reload does not. */
async function reloadInto(stack: Stack, color: Color): Promise<void> {
  const signal = await signalNginx(stack, "HUP");
  if (signal.exitCode !== 0) throw new Error(`reload: ${signal.stderr.trim()}`);
  const deadline = performance.now() + RELOAD_SECONDS * 1000;
  for (let inARow = 0; inARow < ANSWERS_IN_A_ROW; await sleep(100)) {
    const answer = await askFrontDoor(stack.settings);
    inARow = answer.color === color ? inARow + 1 : 0;
    if (performance.now() > deadline) {
      throw new Error(
        `reload: after ${RELOAD_SECONDS} s nginx still says ${answer.color ?? "no colour"} (${answer.finding})`,
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
    await testConfiguration(stack);
    await reloadInto(stack, color);
  } catch (error) {
    await (before === undefined ? rm(link) : replaceLink(link, before));
    // A reload that only came late would still bring the new colour: the last word must be the old link's.
    await signalNginx(stack, "HUP");
    throw new NginxReloadError("Nginx reload failed, manual intervention required", {
      details: error instanceof Error ? error.message : String(error),
      next: `See what nginx says with: ${settings.dockerCmd} exec ${settings.nginxContainer} nginx -t -c ${CONFIGURATION}
Mend it, then switch by hand with: ln -sfn ${upstreamOf(color)} ${link} && ${settings.dockerCmd} kill -s HUP ${settings.nginxContainer}
The old colour serves; ${color} keeps running beside it.`,
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

/** How many workers of before a reload still hold connections. The container's own /proc needs no ps on either side. */
async function oldWorkers(stack: Stack): Promise<number> {
  const { stdout } = await execInNginx(stack, ["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"]);
  return stdout.split("worker process is shutting down").length - 1;
}

/** Waits until no nginx worker of before the switch is left, DRAIN_SECONDS at most; says what is still open then. */
export async function drainNginx(stack: Stack): Promise<void> {
  const { drainSeconds } = stack.settings;
  const deadline = performance.now() + drainSeconds * 1000;
  for (;;) {
    const left = await oldWorkers(stack);
    if (left === 0) return;
    if (performance.now() > deadline) {
      stack.log.warn(
        `${left} old nginx workers still hold connections after ${drainSeconds} s: they end with the old colour`,
      );
      return;
    }
    await sleep(250);
  }
}
