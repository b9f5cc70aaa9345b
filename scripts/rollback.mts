#!/usr/bin/env -S npx tsx
import { findActive } from "../lib/active.ts";
import { type Color, getActiveColor, getInactiveColor, markActive } from "../lib/color.ts";
import { checkDocker, imageOf, restartContainer, stopContainer, taggedImage } from "../lib/docker.ts";
import { NothingToRollBackToError } from "../lib/errors.ts";
import { healthCheck } from "../lib/health.ts";
import { bringUpFrontDoor, drainNginx, switchNginx, verifyNginxTraffic } from "../lib/nginx.ts";
import { checkPortAvailable } from "../lib/port.ts";
import { createFolders } from "../lib/settings.ts";
import { runScript, type Stack } from "../lib/stack.ts";
import { takeTrafficBack, undo } from "../lib/undo.ts";

const HELP = `Goes back to the other color as it was left: starts it without building, checks its health, moves nginx over,
watches real traffic, then drains and stops the color it came from. Running it twice returns to where you were.

Usage: npx tsx scripts/rollback.mts [options]

  --verbose   show every docker command and its output
  -h, --help  show this

Exit codes: 0 done · 1 failed, what served before still serves · 2 wrong option or setting
            3 manual intervention needed · 4 another run holds the lock
Settings:   environment over .env.blue-green over defaults; see .env.blue-green.example`;

/** The colour to go back to must be there. Throws NothingToRollBackToError; nothing was stopped. */
async function expectColor(stack: Stack, color: Color): Promise<void> {
  if (await taggedImage(stack, color)) return;
  const { settings } = stack;
  throw new NothingToRollBackToError(
    `There is nothing to roll back to: no image ${imageOf(settings, color)} of a good build`,
    {
      next: "It is there after a second release: npx tsx scripts/deploy-blue-green.mts. What serves was not touched.",
    },
  );
}

async function main(stack: Stack): Promise<void> {
  const { settings, log } = stack;
  await log.step("read the state file", () => getActiveColor(settings.activeColorFile));
  await log.step("look for Docker", () => checkDocker(stack));
  await createFolders(settings);
  await log.step("bring up nginx and auth", () => bringUpFrontDoor(stack));
  const from = await log.step("find the active color", () => findActive(stack));
  const { active } = from;
  const next = getInactiveColor(active);

  await log.step(`look for ${next}`, () => expectColor(stack, next));
  await log.step(`check the port of ${next}`, () => checkPortAvailable(stack, next));
  try {
    await log.step(`start ${next} as it was left`, () => restartContainer(stack, next));
    await log.step(`check the health of ${next}`, () => healthCheck(stack, next));
  } catch (error) {
    await undo(error, () => log.step(`undo: stop ${next}`, () => stopContainer(stack, next)));
  }
  await log.step(`switch nginx to ${next}`, () => switchNginx(stack, next)); // takes itself back when it fails
  try {
    await log.step(`verify ${next} through nginx`, () => verifyNginxTraffic(stack, next));
    await log.step(`mark ${next} as active`, () => markActive(settings.activeColorFile, next));
  } catch (error) {
    await undo(error, () => takeTrafficBack(stack, from, next));
  }

  // From here on the rollback stands. It is marked already, so that an interrupted stop does no harm.
  await log.step(`drain ${active}`, () => drainNginx(stack, active));
  await log.step(`stop ${active}`, () => stopContainer(stack, active));

  const image = await taggedImage(stack, next);
  log.info(`Rolled back ${active} → ${next}: ${imageOf(settings, next)} (${image?.slice(0, 19)})`);
  log.info(log.steps());
  log.info("Return with: npx tsx scripts/rollback.mts");
}

await runScript({ help: HELP, keep: false, main });
