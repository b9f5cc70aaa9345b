#!/usr/bin/env -S npx tsx
import { findActive } from "../lib/active.ts";
import { buildContainer, checkDiskSpace } from "../lib/build.ts";
import { pruneLeftovers } from "../lib/buildcache.ts";
import { getActiveColor, getInactiveColor } from "../lib/color.ts";
import { detectConflicts } from "../lib/conflict.ts";
import { dockerCommands } from "../lib/docker/commands.ts";
import { checkCompose, checkEngine } from "../lib/docker/engine.ts";
import { imageOf, pruneImages, restoreImage, taggedImage } from "../lib/docker/image.ts";
import { startContainer } from "../lib/docker/start.ts";
import {
  discardRelease,
  NEVER_SERVED_GRACE,
  STAND_DOWN,
  standDown,
  stopContainer,
} from "../lib/docker/stop.ts";
import { NginxReloadError } from "../lib/errors.ts";
import { healthCheck, healthCommands } from "../lib/health.ts";
import { checkIdleConnections, idleCommands } from "../lib/idle.ts";
import { settleLeftovers } from "../lib/leftovers.ts";
import { mark } from "../lib/mark.ts";
import { checkMemory, warnOfApiMemory } from "../lib/memory.ts";
import { nginxCommands } from "../lib/nginx/commands.ts";
import { drainNginx } from "../lib/nginx/drain.ts";
import { bringUpFrontDoor } from "../lib/nginx/frontdoor.ts";
import { loadKey } from "../lib/nginx/loadkey.ts";
import { switchCommands, switchNginx } from "../lib/nginx/switch.ts";
import { verifyNginxTraffic } from "../lib/nginx/traffic.ts";
import { checkPortAvailable } from "../lib/port.ts";
import { createFolders } from "../lib/settings.ts";
import { calm, type Outcome, runScript, type Stack } from "../lib/stack.ts";
import { takeTrafficBack, undo } from "../lib/undo.ts";
import { checkVault } from "../lib/vault.ts";

const HELP = `Releases the API to the color that is idle: builds and starts it, checks its health and moves nginx over.
Then asks GET /health through nginx every second for VERIFY_SECONDS: each answer must be healthy and by the new
color. Last, drains and stops the old color. Nothing that serves is touched before that.

Usage: npx tsx scripts/deploy-blue-green.mts [options]

  --keep serving|blue|green|abort
               when both colors run: which one stays (asked on a terminal otherwise; serving: the one
               that nginx serves); the release then goes on to the other
  --dry-run    only look, and say what would be done and with which commands
  --accept-empty-vault
               go on with a vault that is empty although releases used it before; without this, the run takes
               it for a volume that is not mounted, and stops
  --quiet      nothing on stdout but one line when it is done
  --verbose    show every docker command and its output
  -h, --help   show this

Exit codes: 0 done · 1 failed, what served before still serves · 2 wrong option or setting
            3 manual intervention needed · 4 another run holds the lock
            129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM; what was not finished is taken back
Settings:   environment over .env.blue-green over defaults; see .env.blue-green.example
Go back:    npx tsx scripts/rollback.mts
From cron:  node --import tsx scripts/deploy-blue-green.mts --quiet --keep serving
Another source, once: LOOP_API_CONTEXT=/path/to/it npx tsx scripts/deploy-blue-green.mts`;

async function main(stack: Stack): Promise<Outcome> {
  const { settings, lock } = stack;
  await checkVault(stack);
  await stack.look("read the state file", () => getActiveColor(settings));
  await stack.look("look for Docker", () => checkEngine(stack));
  await stack.look("look for Compose", () => checkCompose(stack));
  await createFolders(stack);
  await bringUpFrontDoor(stack);
  await loadKey(stack);
  const truth = await settleLeftovers(stack, await findActive(stack));
  const from = await detectConflicts(stack, truth);
  const { active } = from;
  const next = getInactiveColor(active);
  // What a dry run tells of each step.
  const told = { ...dockerCommands(stack, active, next), ...nginxCommands(stack, active, next) };

  const replaced = (await taggedImage(stack, next))?.id;
  await stack.look("check the disk space", () => checkDiskSpace(stack));
  await stack.look(`look at the memory of ${active}`, () => warnOfApiMemory(stack, active));
  // For the next run, should this one be killed.
  lock.note({
    from: active,
    to: next,
    imageBefore: replaced ?? null,
    started: undefined,
    verified: undefined,
  });
  try {
    await stack.step(`build ${next}`, () => buildContainer(stack, next), told.build);
    await stack.look(`check the port of ${next}`, () => checkPortAvailable(stack, next));
    await stack.look(`check the memory for ${next}`, () => checkMemory(stack, active));
  } catch (error) {
    await undo(stack, error, (inner) =>
      inner.step(`keep the build of ${next} before`, () => restoreImage(inner, next, replaced)),
    );
  }
  const discard = async (inner: Stack): Promise<void> => {
    await inner.step(`keep the build of ${next} before`, () => discardRelease(inner, next, replaced));
    await pruneImages(inner); // nights that fail would leave an image each
  };
  try {
    lock.note({ started: true });
    await stack.step(`start ${next}`, () => startContainer(stack, next), told.start);
    await stack.step(
      `check the health of ${next}`,
      () => healthCheck(stack, next),
      healthCommands(stack, next),
    );
    await stack.step(
      `check the idle connections of ${next}`,
      () => checkIdleConnections(stack, next),
      idleCommands(stack, next),
    );
    await checkVault(stack);
    // Takes itself back when it fails.
    await stack.step(`switch nginx to ${next}`, () => switchNginx(stack, next), switchCommands(stack, next));
  } catch (error) {
    if (error instanceof NginxReloadError) throw error; // both run, and the message says how to go on
    await undo(stack, error, async (inner) => {
      await inner.step(`stop ${next}`, () => stopContainer(inner, next, NEVER_SERVED_GRACE));
      await discard(inner);
    });
  }
  try {
    await stack.step(`verify ${next} through nginx`, () => verifyNginxTraffic(stack, next), told.verify);
    lock.note({ verified: true });
    await mark(stack, next);
  } catch (error) {
    await undo(stack, error, async (inner) => {
      await takeTrafficBack(inner, from, next);
      await discard(inner);
    });
  }

  // From here on the release stands: asked to end, it still stops the old color, so that one is left running.
  const rest = calm(stack);
  await rest.step(`drain ${active}`, () => drainNginx(rest, active), told.drain);
  await rest.step(`${STAND_DOWN[settings.standby]} ${active}`, () => standDown(rest, active), told.standDown);
  await rest.step("remove what old releases left", () => pruneLeftovers(rest), told.prune);

  const [image, left] = await Promise.all([taggedImage(rest, next), taggedImage(rest, active)]).catch(
    () => [],
  ); // no reason to call a release failed that stands
  return {
    did: `Released ${active} → ${next}: ${imageOf(settings, next)} (${image?.id.slice(0, 19) ?? "its id could not be read"})`,
    back: left
      ? "Go back with: npx tsx scripts/rollback.mts"
      : "This is the first release: there is nothing to go back to yet",
    image: image?.id,
    revision: image?.revision,
  };
}

await runScript({ verb: "deploy", help: HELP, keep: true, needs: "vault and sources", main });
