import { readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { quote } from "zx/core";
import { replaceLink } from "./atomic.ts";
import { COLORS, type Color, isColor } from "./color.ts";
import {
  containerOf,
  downServices,
  execInNginx,
  type FrontDoor,
  inspectColor,
  inspectFrontDoor,
  runningColors,
  startService,
} from "./docker.ts";
import {
  DockerError,
  LinkError,
  NginxReloadError,
  NotBackError,
  StopError,
  UsageError,
  VerifyError,
} from "./errors.ts";
import { type Answer, probeHealth } from "./health.ts";
import type { Settings } from "./settings.ts";
import { pause, type Stack } from "./stack.ts";

const CONFIGURATION = "/etc/nginx/nginx-blue-green.conf";
/** How long, in seconds, nginx may take from the signal to serving with the new upstream. */
const RELOAD_SECONDS = 10;
/** Old and new workers both accept for 100 ms: this many new answers in a row, 100 ms apart, and the old ones are done. */
const ANSWERS_IN_A_ROW = 3;

/** How long, in seconds, the first look-up of the colours' addresses may take after a start. */
const FIRST_LOOKUP_SECONDS = 5;
const ESTABLISHED = "01";
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

/** Which colour nginx has loaded, as it says itself; undefined when it does not answer. Never throws. */
async function loadedColor({ nginxPort, health }: Settings): Promise<string | undefined> {
  return (await probeHealth(`http://127.0.0.1:${nginxPort}/_loop/color`, health.timeout)).color;
}

/** Asks every 0.1 s until it is so, `limit` seconds at most; tells whether it became so. */
export async function awaitThat(limit: number, isSo: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = performance.now() + limit * 1000; ; await sleep(100)) {
    if (await isSo()) return true;
    if (performance.now() >= deadline) return false;
  }
}

/**
 * Brings up nginx and auth where they do not run, and waits until nginx answers, and serves where a colour runs:
 * asked too early what serves, it would seem that nothing does. Throws DockerError, UsageError.
 */
export async function bringUpFrontDoor(stack: Stack): Promise<void> {
  const frontDoor = await inspectFrontDoor(stack);
  expectOwnPort(stack, frontDoor);
  const down = downServices(stack, frontDoor);
  for (const service of down) {
    stack.log.info(`${service.name} does not run: bringing it up`);
    await stack.step(`bring up ${service.name}`, () => startService(stack, service), [service.command]);
  }
  if (down.length > 0) await stack.step("wait until nginx serves", () => awaitFrontDoor(stack));
}

/** All that is asked of NGINX_PORT must come from this stack's nginx: another's answers would make it stop what serves here. */
function expectOwnPort({ settings }: Stack, { nginx }: FrontDoor): void {
  const { nginxPort, nginxContainer } = settings;
  if (nginx.status === "absent" || nginx.ports.includes(nginxPort)) return;
  throw new UsageError(
    `NGINX_PORT is ${nginxPort}, but ${nginxContainer} was made for ${nginx.ports.join(", ")}`,
    {
      next: `Set it back, or have nginx made anew at a quiet time: docker rm --force ${nginxContainer}, and run this again. Nothing was changed.`,
    },
  );
}

async function awaitFrontDoor(stack: Stack): Promise<void> {
  const { dockerCmd, nginxContainer } = stack.settings;
  const answers = async () => (await loadedColor(stack.settings)) !== undefined;
  if (!(await awaitThat(RELOAD_SECONDS, answers))) {
    throw new DockerError(`${nginxContainer} was started, but nginx does not answer`, {
      next: `See why with: ${dockerCmd} logs --tail 20 ${nginxContainer}`,
    });
  }
  if ((await runningColors(stack)).length === 0) return;
  await awaitThat(FIRST_LOOKUP_SECONDS, async () => (await servingColor(stack)) !== undefined);
}

/**
 * Where the active link points: the name of a colour, or else its target as it stands; undefined when there is none.
 * Throws LinkError when something else than a link is in its place: somebody put it there, and a switch would replace it.
 */
export async function readLink({ settings }: Stack): Promise<string | undefined> {
  const link = activeUpstream(settings);
  try {
    const target = await readlink(link);
    return COLORS.find((color) => target === upstreamOf(color)) ?? target;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new LinkError(`${link} is not a link that can be read`, {
      details: String(error),
      next: `Move it away, then run this again; a link to ${upstreamOf("blue")} or ${upstreamOf("green")} will be made. Nothing was changed.`,
    });
  }
}

/**
 * Makes the link agree with what nginx serves: a run that was killed between swap and reload leaves a link that the next
 * restart of nginx would follow, to a colour that is stopped. Throws what the file system throws.
 */
export const repairLink = ({ settings }: Stack, serving: Color): Promise<void> =>
  replaceLink(activeUpstream(settings), upstreamOf(serving));

/**
 * In one command, since each into the container takes its time; process 1 is nginx's master.
 * The test comes first: a reload that is refused says so only in the log.
 */
const TEST_AND_RELOAD = `nginx -t -q -c ${CONFIGURATION} && kill -HUP 1`;

/** The commands of a switch, as an owner could type them. */
export function switchCommands({ settings }: Stack, color: Color): string[] {
  const { dockerCmd, nginxContainer } = settings;
  return [
    `ln -sfn ${upstreamOf(color)} ${quote(activeUpstream(settings))}`,
    `${dockerCmd} exec ${nginxContainer} sh -c '${TEST_AND_RELOAD}'`,
  ];
}

/** How one colour is watched and the other drained, for a dry run to tell. */
export const nginxCommands = ({ settings }: Stack, from: Color, to: Color) => ({
  verify: [
    `ask http://127.0.0.1:${settings.nginxPort}/health every second for ${settings.verifySeconds} s: healthy, by ${to}`,
  ],
  drain: [
    `wait until the nginx workers that still use ${from} have ended, ${settings.drainSeconds} s at most`,
  ],
});

/** Tests and reloads, then asks until nginx says that it has loaded the colour. Throws a plain Error with what it saw. */
async function reloadInto(stack: Stack, color: Color): Promise<void> {
  const reload = await execInNginx(stack, ["sh", "-c", TEST_AND_RELOAD]);
  if (reload.exitCode !== 0) throw new Error(reload.stderr.trim());
  let [loaded, inARow]: [string | undefined, number] = [undefined, 0];
  const isLoaded = await awaitThat(RELOAD_SECONDS, async () => {
    loaded = await loadedColor(stack.settings);
    inARow = loaded === color ? inARow + 1 : 0;
    return inARow === ANSWERS_IN_A_ROW;
  });
  if (!isLoaded) throw new Error(`after ${RELOAD_SECONDS} s nginx still says ${loaded ?? "nothing"}`);
}

/** Puts the link back, has nginx read it again, and tells in words what is seen through nginx then. Never throws. */
async function restoreLink(stack: Stack, before: string | undefined, notWanted: Color): Promise<string> {
  const link = activeUpstream(stack.settings);
  try {
    await (before === undefined ? rm(link, { force: true }) : replaceLink(link, before));
  } catch (error) {
    return `The link could not be put back: ${error}`;
  }
  // A reload that only came late would still bring the new colour: the last word must be the old link's.
  await execInNginx(stack, ["sh", "-c", TEST_AND_RELOAD]).catch(() => undefined);
  await awaitThat(RELOAD_SECONDS, async () => (await loadedColor(stack.settings)) !== notWanted);
  const { healthy, color, finding } = await askFrontDoor(stack.settings);
  return `The link is back on what it was. Through nginx now: ${healthy ? `${color} serves` : finding}.`;
}

/**
 * Spec `switch_nginx`: points the active upstream at a colour, tests, reloads, and sees nginx run with it.
 * Throws NginxReloadError when any of that fails; the old link is back before it does.
 */
export async function switchNginx(stack: Stack, color: Color): Promise<void> {
  const { settings } = stack;
  const link = activeUpstream(settings);
  const before = await readlink(link).catch(() => undefined);
  try {
    await replaceLink(link, upstreamOf(color));
    await reloadInto(stack, color);
  } catch (error) {
    const seen = await restoreLink(stack, before, color);
    const exec = `${settings.dockerCmd} exec ${settings.nginxContainer}`;
    throw new NginxReloadError("Nginx reload failed, manual intervention required", {
      details: `${error instanceof Error ? error.message : error}\n${seen} ${color} keeps running.`,
      next: `See what nginx says with: ${exec} nginx -t -c ${CONFIGURATION}
Mend it, then run this again: it goes on from what nginx serves then.
Or switch by hand with: ${switchCommands(stack, color).join(" && ")}`,
    });
  }
}

/**
 * Spec `verify_nginx_traffic`: asks through nginx every second for `duration` seconds (VERIFY_SECONDS; at least once).
 * Throws VerifyError at the first answer that is not healthy or not by the colour, InterruptedError.
 */
export async function verifyNginxTraffic(
  stack: Stack,
  color: Color,
  duration = stack.settings.verifySeconds,
): Promise<void> {
  const since = performance.now();
  for (;;) {
    const answer = await askFrontDoor(stack.settings);
    const seconds = (performance.now() - since) / 1000;
    if (!answer.healthy || answer.color !== color) {
      throw new VerifyError(`Verification through nginx failed after ${seconds.toFixed(0)} s`, {
        details: `Expected a healthy answer by ${color}, got one by ${answer.color ?? "nobody"}: ${answer.finding}`,
        next: `See why ${color} failed in its log, mend it and run this again.`,
      });
    }
    if (seconds >= duration) return;
    stack.log.progress(`well for ${seconds.toFixed(0)} of ${duration} s`);
    await pause(stack, 1000);
  }
}

/**
 * Sends the traffic back to a colour, and, where it served before, sees it serve again.
 * Throws NginxReloadError, or NotBackError when it is not healthy through nginx within RELOAD_SECONDS.
 */
export async function switchBack(
  stack: Stack,
  { active, serves }: { active: Color; serves: boolean },
): Promise<void> {
  await switchNginx(stack, active);
  if (!serves || (await awaitThat(RELOAD_SECONDS, async () => (await servingColor(stack)) === active)))
    return;
  const { finding } = await askFrontDoor(stack.settings);
  throw new NotBackError(`Traffic is on ${active} again, but ${active} does not answer well`, {
    details: finding,
    next: `Both colors keep running. Look at the log of ${containerOf(stack.settings, active)}, and run this again with --keep for the one that is well.`,
  });
}

/** Runs a shell line in nginx's container that must succeed for anything to be known, in `limit` seconds. Throws DockerError. */
async function shell(stack: Stack, line: string, limit?: number): Promise<string> {
  const output = await execInNginx(stack, ["sh", "-c", line], limit);
  if (output.exitCode === 0) return output.stdout;
  throw new DockerError("nginx's container does not answer", { details: output.stderr.trim(), next: "" });
}

/** Looks for nginx's workers of before a reload. Their titles tell, and need no ps on either side. */
const OLD_WORKERS = "'[s]hutting down' /proc/[0-9]*/cmdline";

/**
 * Waits for old workers to end, `limit` seconds at most; gives the pids, inside the container, of those that are left.
 * It waits in there: a `docker exec` for each look takes a tenth of a small machine from those who are being served.
 */
async function awaitOldWorkers(stack: Stack, limit: number): Promise<string[]> {
  // -q: when any process ends while it looks, grep -l reports that instead of what it found, and the wait would be over.
  const wait = `timeout ${Math.max(limit, 0.1)} sh -c "while grep -qs ${OLD_WORKERS}; do sleep 0.1; done"`;
  const left = await shell(
    stack,
    `{ command -v grep && command -v timeout; } >/dev/null && { ${wait}; grep -ls ${OLD_WORKERS}; true; }`,
    limit,
  );
  return left.match(/\d+/g) ?? [];
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
  const rows = (await shell(stack, "cat /proc/net/tcp")).split("\n").map((row) => row.trim().split(/\s+/));
  return rows.filter(([, , remote, state]) => state === ESTABLISHED && remotes.includes(remote ?? "")).length;
}

/**
 * Waits until nothing uses a colour any more: until no nginx worker of before the switch is left, DRAIN_SECONDS at most.
 * Then says how many requests are still open, and ends those workers, so that nginx closes before the container does.
 * Throws StopError when it cannot see.
 */
export async function drainNginx(stack: Stack, color: Color): Promise<void> {
  const { settings, log } = stack;
  try {
    const deadline = performance.now() + settings.drainSeconds * 1000;
    let left: string[];
    // Only the limit ends it while there are some: whatever else ended the wait, they may still be serving.
    do left = await awaitOldWorkers(stack, Math.max(0, deadline - performance.now()) / 1000);
    while (left.length > 0 && performance.now() < deadline);
    if (left.length === 0) return;
    const open = await openRequests(stack, color);
    log.warn(`${open} requests are still open on ${color} after ${settings.drainSeconds} s: closing them`);
    await shell(stack, `kill -TERM ${left.join(" ")}; true`);
    await awaitOldWorkers(stack, WORKERS_END_SECONDS);
  } catch (error) {
    if (!(error instanceof DockerError)) throw error;
    throw new StopError(`Cannot see whether ${color} is still used, so it was not stopped`, {
      details: `${error.message}\n${error.details}`,
      next: `The other color serves. When nginx is well again, run: ${settings.dockerCmd} stop ${containerOf(settings, color)}`,
    });
  }
}
