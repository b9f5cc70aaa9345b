#!/usr/bin/env -S npx tsx
import { findActive, forWayBack, type Truth } from "../lib/active.ts";
import { type Color, getActiveColor, getInactiveColor } from "../lib/color.ts";
import { dockerCommands } from "../lib/docker/commands.ts";
import { checkCompose, checkEngine } from "../lib/docker/engine.ts";
import { imageOf, taggedImage } from "../lib/docker/image.ts";
import { findRestart, restartContainer } from "../lib/docker/start.ts";
import { NEVER_SERVED_GRACE, STAND_DOWN, standDown, stopContainer } from "../lib/docker/stop.ts";
import { NginxReloadError } from "../lib/errors.ts";
import { healthCheck, healthCommands } from "../lib/health.ts";
import { settleLeftovers } from "../lib/leftovers.ts";
import type { Note } from "../lib/lock.ts";
import { mark } from "../lib/mark.ts";
import { warnOfMemory } from "../lib/memory.ts";
import { nginxCommands } from "../lib/nginx/commands.ts";
import { drainNginx } from "../lib/nginx/drain.ts";
import { bringUpForWayBack, loadedColor } from "../lib/nginx/frontdoor.ts";
import { loadKey } from "../lib/nginx/loadkey.ts";
import { switchCommands, switchNginx } from "../lib/nginx/switch.ts";
import { verifyNginxTraffic } from "../lib/nginx/traffic.ts";
import { checkPortAvailable } from "../lib/port.ts";
import { createFoldersForWayBack } from "../lib/settings.ts";
import { calm, type Outcome, runScript, type Stack } from "../lib/stack.ts";
import { takeTrafficBack, undo } from "../lib/undo.ts";
import { finishing, isAskedAgain } from "../lib/unfinished.ts";
import { checkVault } from "../lib/vault.ts";

const HELP = `Goes back to the other color as it was left: starts it without building, checks its health and moves nginx over.
Then asks GET /health through nginx every second for VERIFY_SECONDS: each answer must be healthy and by that color.
Last, drains and stops the color it came from. Running it twice returns to where you were.

Usage: npx tsx scripts/rollback.mts [options]

  --dry-run   only look, and say what would be done and with which commands
  --accept-empty-vault
              go on with a vault that is empty although releases used it before; without this, the run takes
              it for a volume that is not mounted, and stops
  --quiet     nothing on stdout but one line when it is done
  --verbose   show every docker command and its output
  -h, --help  show this

Exit codes: 0 done · 1 failed, what served before still serves · 2 wrong option or setting
            3 manual intervention needed · 4 another run holds the lock
            129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM; what was not finished is taken back
Settings:   environment over .env.blue-green over defaults; see .env.blue-green.example`;

/** What this run is asked for is done already, by what it found or has put right: sees that it serves well, and says so. */
async function finish(stack: Stack, truth: Truth, did: string, cutOff: Note): Promise<Outcome> {
  const { active: color, proof } = truth;
  const from = getInactiveColor(color);
  stack.lock.note({ from, to: color });
  const { verify } = nginxCommands(stack, from, color);
  const verified = () =>
    stack.step(`verify ${color} through nginx`, () => verifyNginxTraffic(stack, color), verify);
  if (proof !== "done") await (cutOff.verb === "rollback" ? finishing(stack, cutOff, verified) : verified());
  return outcomeOf(stack, color, did);
}

async function outcomeOf(stack: Stack, color: Color, did: string): Promise<Outcome> {
  const image = await taggedImage(stack, color).catch(() => undefined); // no reason to call a rollback failed that stands
  const id = image?.id.slice(0, 19) ?? "its id could not be read";
  return {
    did: `${did} ${getInactiveColor(color)} → ${color}: ${imageOf(stack.settings, color)} (${id})`,
    back: "Return with: npx tsx scripts/rollback.mts",
    image: image?.id,
    revision: image?.revision,
  };
}

async function main(stack: Stack): Promise<Outcome> {
  const { settings, lock } = stack;
  await checkVault(stack);
  await stack.look("read the state file", () => getActiveColor(settings));
  await stack.look("look for Docker", () => checkEngine(stack));
  await createFoldersForWayBack(stack);
  await bringUpForWayBack(stack);
  await loadKey(stack);
  const cutOff = lock.unfinished();
  const again = await isAskedAgain(stack, cutOff);
  const loaded = await loadedColor(settings);
  const from = await settleLeftovers(stack, forWayBack(await findActive(stack), cutOff, again));
  const { active } = from;
  if (again && cutOff?.to === active && from.serves)
    return finish(stack, from, "Rolled back, by the run that was cut off:", cutOff);
  // The release that its owner wants to leave was cut off, and the traffic went back with it.
  if (cutOff?.verb === "deploy" && cutOff.to === loaded && loaded !== active && from.serves)
    return finish(stack, from, "Rolled back, from a release that was cut off:", cutOff);
  const next = getInactiveColor(active);
  // What a dry run tells of each step.
  const told = { ...dockerCommands(stack, active, next), ...nginxCommands(stack, active, next) };

  const restart = await stack.look(`look for ${next}`, () => findRestart(stack, next));
  if (!restart.asLeft) await stack.look("look for Compose", () => checkCompose(stack));
  if (!restart.hasPort) {
    await stack.look(`check the port of ${next}`, () => checkPortAvailable(stack, next));
    await stack.look(`look at the memory for ${next}`, () => warnOfMemory(stack, active));
  }
  // Not those of a run before.
  lock.note({ from: active, to: next, imageBefore: undefined, started: undefined, verified: undefined });
  try {
    await stack.step(
      `start ${next} ${restart.asLeft ? "as it was left" : "anew from its image"}`,
      () => restartContainer(stack, next, restart),
      [restart.command],
    );
    await stack.step(
      `check the health of ${next}`,
      () => healthCheck(stack, next),
      healthCommands(stack, next),
    );
    await checkVault(stack);
    // Takes itself back when it fails.
    await stack.step(`switch nginx to ${next}`, () => switchNginx(stack, next), switchCommands(stack, next));
  } catch (error) {
    if (error instanceof NginxReloadError) throw error; // both run, and the message says how to go on
    await undo(stack, error, (inner) =>
      inner.step(`stop ${next}`, () => stopContainer(inner, next, NEVER_SERVED_GRACE)),
    );
  }
  try {
    await stack.step(`verify ${next} through nginx`, () => verifyNginxTraffic(stack, next), told.verify);
    lock.note({ verified: true });
    await mark(stack, next);
  } catch (error) {
    await undo(stack, error, (inner) => takeTrafficBack(inner, from, next));
  }

  // From here on the rollback stands: asked to end, it still stops the color it came from, so that one is left running.
  const rest = calm(stack);
  await rest.step(`drain ${active}`, () => drainNginx(rest, active), told.drain);
  await rest.step(`${STAND_DOWN[settings.standby]} ${active}`, () => standDown(rest, active), told.standDown);

  return outcomeOf(rest, next, "Rolled back");
}

await runScript({ verb: "rollback", help: HELP, keep: false, needs: "vault", main });
