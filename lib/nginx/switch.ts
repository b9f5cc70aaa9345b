import { readlink, rm } from "node:fs/promises";
import { quote } from "zx/core";
import { replaceLink } from "../atomic.ts";
import type { Color } from "../color.ts";
import { containerOf } from "../docker/container.ts";
import { execInNginx } from "../docker/frontdoor.ts";
import { NginxReloadError, NotBackError } from "../errors.ts";
import type { Stack } from "../stack.ts";
import { awaitThat } from "../wait.ts";
import { askFrontDoor, loadedColor, RELOAD_SECONDS, servingColor } from "./frontdoor.ts";
import { activeUpstream, upstreamOf } from "./link.ts";
import { CONFIGURATION, ENDING, TITLES, WORKER } from "./workers.ts";

/**
 * In one command, since each into the container takes its time; process 1 is nginx's master.
 * The test comes first: a reload that is refused says so only in the log.
 */
const TEST_AND_RELOAD = `nginx -t -q -c ${CONFIGURATION} && kill -HUP 1`;

/**
 * The same, and then waits until no worker of before takes requests any more: they do so for 100 ms, longer on a machine
 * that is busy, with the color of before, and a drain does not count them yet.
 */
const TEST_RELOAD_AND_WAIT = `
for title in $(grep -ls ${WORKER} ${TITLES}); do grep -qs ${ENDING} $title || before="$before $title"; done
${TEST_AND_RELOAD} || exit
looks=0
for title in $before; do
  while grep -qs ${WORKER} $title && ! grep -qs ${ENDING} $title; do
    [ $((looks += 1)) -le ${RELOAD_SECONDS * 20} ] || { echo "after ${RELOAD_SECONDS} s a worker of before the reload goes on; why is in the log of nginx" >&2; exit 1; }
    sleep 0.05
  done
done`;

/** The commands of a switch, as an owner could type them. */
export function switchCommands({ settings }: Stack, color: Color): string[] {
  const { dockerCmd, nginxContainer } = settings;
  return [
    `ln -sfn ${upstreamOf(color)} ${quote(activeUpstream(settings))}`,
    `${dockerCmd} exec ${nginxContainer} sh -c '${TEST_AND_RELOAD}'`,
  ];
}

/** Tests and reloads, then asks until nginx says that it has loaded the color. Throws a plain Error with what it saw. */
export async function reloadInto(stack: Stack, color: Color): Promise<void> {
  const reload = await execInNginx(stack, ["sh", "-c", TEST_RELOAD_AND_WAIT], RELOAD_SECONDS);
  if (reload.exitCode !== 0) throw new Error(reload.stderr.trim());
  let loaded: string | undefined;
  const isLoaded = await awaitThat(RELOAD_SECONDS, async () => {
    loaded = await loadedColor(stack.settings);
    return loaded === color;
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
  // A reload that only came late would still bring the new color: the last word must be the old link's.
  await execInNginx(stack, ["sh", "-c", TEST_AND_RELOAD]).catch(() => undefined);
  await awaitThat(RELOAD_SECONDS, async () => (await loadedColor(stack.settings)) !== notWanted);
  const { healthy, color, finding } = await askFrontDoor(stack.settings);
  return `The link is back on what it was. Through nginx now: ${healthy ? `${color} serves` : finding}.`;
}

/**
 * Spec `switch_nginx`: points the active upstream at a color, tests, reloads, and sees nginx run with it.
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
 * Sends the traffic back to a color, and, where it served before, sees it serve again.
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
