import { readlink, rm } from "node:fs/promises";
import { type Color, isColor } from "../color.ts";
import { execInNginx } from "../docker/services.ts";
import { nameOf } from "../engine/colors.ts";
import { NginxReloadError, NotBackError } from "../errors.ts";
import { type Context, tryRecord } from "../run/context.ts";
import { replaceLink } from "../util/atomic.ts";
import type { Answer } from "../util/http-probe.ts";
import { pollUntil } from "../util/poll.ts";
import { quote } from "../util/quote.ts";
import { shareFile, writeShare } from "./canary.ts";
import { activeUpstream, type OtherGets, parseTarget, upstreamOf } from "./link.ts";
import { loadedForOther, probeLoadedColor, probeNginx, RELOAD_SECONDS, servingColor } from "./probe.ts";
import { writeTags } from "./sessions.ts";
import { ACTIVE_UPSTREAM, CONFIGURATION, PROCESS_TITLES, SHUTTING_DOWN, WORKER } from "./workers.ts";

/**
 * One command, because each `docker exec` takes time; process 1 is nginx's master.
 * The test comes first: nginx reports a rejected reload only in its log.
 */
const TEST_AND_RELOAD = `nginx -t -q -c ${CONFIGURATION} && kill -HUP 1`;

/** Seconds in which nginx's container must see a new link; well within the deadline of the command. */
const SHARED_SECONDS = 10;

/**
 * Waits until the container sees the link point at its argument. On Linux it does at once. The file sharing of a VM (Docker
 * Desktop, colima) caches folders and may lag, and nginx would load the old link again.
 */
const WAIT_FOR_LINK = `
looks=0
while command -v readlink >/dev/null && [ "$(readlink ${ACTIVE_UPSTREAM})" != "$1" ]; do
  [ $((looks += 1)) -le ${SHARED_SECONDS * 20} ] || { echo "after ${SHARED_SECONDS} s ${ACTIVE_UPSTREAM} in nginx's container still points elsewhere; does Docker's VM share nginx's folder?" >&2; exit 1; }
  sleep 0.05
done`;

/**
 * Tests and reloads, then waits until no old worker accepts requests. Old workers go on accepting for 100 ms, longer on a busy
 * machine, and send those requests to the old color; a drain would not count them yet.
 */
const TEST_RELOAD_AND_WAIT = `${WAIT_FOR_LINK}
for title in $(grep -ls ${WORKER} ${PROCESS_TITLES}); do grep -qs ${SHUTTING_DOWN} $title || before="$before $title"; done
${TEST_AND_RELOAD} || exit
looks=0
for title in $before; do
  while grep -qs ${WORKER} $title && ! grep -qs ${SHUTTING_DOWN} $title; do
    [ $((looks += 1)) -le ${RELOAD_SECONDS * 20} ] || { echo "after ${RELOAD_SECONDS} s an old worker is still accepting requests; see nginx's log" >&2; exit 1; }
    sleep 0.05
  done
done`;

/** After a failed switch. A container that never sees the restored link still has it. */
const RESTORE = `${WAIT_FOR_LINK}
${TEST_AND_RELOAD}`;

/** The commands of a switch, as an owner would type them. */
export function switchCommands({ settings }: Context, color: Color, otherGets?: OtherGets): string[] {
  const { dockerCmd, nginxContainer } = settings;
  return [
    `ln -sfn ${upstreamOf(color, otherGets)} ${quote(activeUpstream(settings))}`,
    `${dockerCmd} exec ${nginxContainer} sh -c '${TEST_AND_RELOAD}'`,
  ];
}

/** Tests and reloads, then waits until nginx reports the colors as loaded. Throws a plain Error with what was seen. */
export async function reloadInto(
  context: Context,
  color: Color,
  otherGets: OtherGets = "nothing",
): Promise<void> {
  const command = ["sh", "-c", TEST_RELOAD_AND_WAIT, "sh", upstreamOf(color, otherGets)];
  const reload = await execInNginx(context, command, RELOAD_SECONDS);
  if (reload.exitCode !== 0) throw new Error(reload.stderr.trim());
  let loaded: Answer | undefined;
  const isLoaded = await pollUntil(RELOAD_SECONDS, async () => {
    loaded = await probeLoadedColor(context.settings);
    return loaded.color === color && loadedForOther(loaded) === otherGets;
  });
  if (isLoaded) return;
  const { color: seenColor = "nothing", kept, canary } = loaded ?? {};
  const seen = `${seenColor}${kept ? `, and sessions of ${kept}` : ""}${canary ? `, and ${canary} as a canary` : ""}`;
  throw new Error(`after ${RELOAD_SECONDS} s nginx still reports ${seen}`);
}

/** Sets the link to a target (undefined: no link), reloads nginx, and returns in words what was seen then. Never throws. */
async function restoreLink(context: Context, target: string | undefined): Promise<string> {
  const link = activeUpstream(context.settings);
  try {
    await (target === undefined ? rm(link, { force: true }) : replaceLink(link, target));
  } catch (error) {
    return `The link could not be restored: ${error}`;
  }
  // A late reload would still load the rejected target, so the restored link must be loaded last.
  const command = ["sh", "-c", target === undefined ? TEST_AND_RELOAD : RESTORE, "sh", target ?? ""];
  await execInNginx(context, command).catch(() => undefined);
  await pollUntil(RELOAD_SECONDS, async () => {
    const loaded = await probeLoadedColor(context.settings);
    const expected = target ?? upstreamOf("blue"); // as nginx without a link
    return !isColor(loaded.color) || upstreamOf(loaded.color, loadedForOther(loaded)) === expected;
  });
  const { healthy, color, finding } = await probeNginx(context.settings);
  return `The link points at ${target ?? "nothing"}. Through nginx now: ${healthy ? `${color} serves` : finding}.`;
}

/** The target to restore after a failed switch: the previous one, but without its canary, because no run watches it any longer. */
function withoutCanary(before: string | undefined): string | undefined {
  const route = before === undefined ? undefined : parseTarget(before);
  return route?.otherGets === "canary" ? upstreamOf(route.active) : before;
}

/**
 * Swaps the link and reloads. If that fails, restores the old link. On the way `back`, it leaves the new link in place instead,
 * so that a restart of nginx cannot return to the color that failed. Throws NginxReloadError.
 */
async function swapUpstream(
  context: Context,
  color: Color,
  otherGets: OtherGets = "nothing",
  direction: "forth" | "back" = "forth",
): Promise<void> {
  const { settings } = context;
  const link = activeUpstream(settings);
  const before = await readlink(link).catch(() => undefined);
  const target = upstreamOf(color, otherGets);
  // After a switch back, workers from before the first switch may still serve this color, and newer ones the other color.
  const areShared = before !== undefined && parseTarget(before)?.otherGets !== "nothing";
  if (areShared || direction === "back") tryRecord(context, { sharedWorkers: true });
  try {
    await writeTags(context, otherGets);
    if (otherGets === "canary") await writeShare(settings);
    await replaceLink(link, target);
    await reloadInto(context, color, otherGets);
  } catch (error) {
    const seen = await restoreLink(context, direction === "back" ? target : withoutCanary(before));
    const exec = `${settings.dockerCmd} exec ${settings.nginxContainer}`;
    throw new NginxReloadError("Nginx reload failed, manual intervention required", {
      details: `${error instanceof Error ? error.message : error}\n${seen} Both colors keep running.`,
      next: `See what nginx reports: ${exec} nginx -t -c ${CONFIGURATION}
Fix it and run this again; the run starts from the color that serves then.${
        otherGets === "canary" ? "" : `\nOr switch by hand: ${switchCommands(context, color).join(" && ")}`
      }`,
    });
  }
}

/**
 * Spec `switch_nginx`: points the active link at a color, tests and reloads nginx, and sees it run with that color. The other
 * color gets nothing any more, or only its own sessions. Throws NginxReloadError if any of that fails; the old link is restored
 * first.
 */
export const switchNginx = (
  context: Context,
  color: Color,
  otherGets: "nothing" | "sessions" = "nothing",
): Promise<void> =>
  context.change(
    `switch nginx to ${color}`,
    () => swapUpstream(context, color, otherGets),
    switchCommands(context, color, otherGets),
  );

/** Sends CANARY_PERCENT of the new requests to a canary; the rest stays with the active color. Throws as `switchNginx` does. */
export const sendToCanary = (context: Context, active: Color, canary: Color): Promise<void> =>
  context.change(
    `send ${context.settings.canary.percent} % of the new requests to ${canary}`,
    () => swapUpstream(context, active, "canary"),
    [`write ${shareFile(context.settings)}`, ...switchCommands(context, active, "canary")],
  );

/**
 * Switches nginx back to a color and, if it served before, waits until it serves again. The other color gets nothing any more,
 * or only its own sessions.
 * Throws NginxReloadError, or NotBackError when it is not healthy through nginx within RELOAD_SECONDS.
 */
export const switchBack = (
  context: Context,
  { active, serves }: { active: Color; serves: boolean },
  otherGets: "nothing" | "sessions" = "nothing",
): Promise<void> => {
  const back = async (): Promise<void> => {
    await swapUpstream(context, active, otherGets, "back");
    if (!serves || (await pollUntil(RELOAD_SECONDS, async () => (await servingColor(context)) === active)))
      return;
    const { finding } = await probeNginx(context.settings);
    throw new NotBackError(`Traffic is on ${active} again, but ${active} is not healthy`, {
      details: finding,
      next: `Both colors keep running. See the log of ${nameOf(context, active)}, and run this again with --keep and the healthy color.`,
    });
  };
  return context.change(`switch nginx back to ${active}`, back, switchCommands(context, active, otherGets));
};
