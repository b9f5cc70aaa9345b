#!/usr/bin/env -S npx tsx
import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import { findActive } from "../lib/active.ts";
import { type Color, getActiveColor, getInactiveColor, isColor, markActive } from "../lib/color.ts";
import {
  buildContainer,
  checkDocker,
  imageOf,
  removeReplaced,
  restoreImage,
  runningColors,
  startContainer,
  stopContainer,
  taggedImage,
} from "../lib/docker.ts";
import { BothRunningError } from "../lib/errors.ts";
import { healthCheck } from "../lib/health.ts";
import {
  bringUpFrontDoor,
  drainNginx,
  repairLink,
  servingColor,
  switchBack,
  switchNginx,
  verifyNginxTraffic,
} from "../lib/nginx.ts";
import type { Keep } from "../lib/options.ts";
import { checkPortAvailable } from "../lib/port.ts";
import { createFolders } from "../lib/settings.ts";
import { runScript, type Stack } from "../lib/stack.ts";
import { takeTrafficBack, undo } from "../lib/undo.ts";

const HELP = `Releases the API to the color that is idle: builds and starts it, checks its health, moves nginx over,
watches real traffic, then drains and stops the old color. Nothing that serves is touched before that.

Usage: npx tsx scripts/deploy-blue-green.mts [options]

  --keep blue|green|abort  when both colors run: which one stays (asked on a terminal otherwise);
                           the release then goes on to the other
  --verbose                show every docker command and its output
  -h, --help               show this

Exit codes: 0 done · 1 failed, what served before still serves · 2 wrong option or setting
            3 manual intervention needed · 4 another run holds the lock
Settings:   environment over .env.blue-green over defaults; see .env.blue-green.example
Go back:    npx tsx scripts/rollback.mts`;

const BOTH_RUNNING = "Both blue and green are running. Keep which? (blue/green/abort)";

/** The answer to "both are running": from --keep, or from the terminal. Without either it is "abort". */
async function whichToKeep({ options, log }: Stack, serving: Color | undefined): Promise<Keep> {
  log.warn(`${BOTH_RUNNING} nginx serves ${serving ?? "neither"} now.`);
  if (options.keep !== undefined) return options.keep;
  if (!process.stdin.isTTY) return "abort";
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const closed = once(terminal, "close").then(() => "abort"); // Ctrl-D is an answer, too
  const answer = await Promise.race([terminal.question("blue/green/abort: "), closed]);
  terminal.close();
  return isColor(answer.trim()) ? (answer.trim() as Color) : "abort";
}

/**
 * Spec `detect_conflicts`: when both colours run, keeps the one that is asked for. It gets the traffic before the other is stopped.
 * Throws BothRunningError on "abort", and what its steps throw; nothing is stopped then.
 */
async function detectConflicts(stack: Stack): Promise<void> {
  const { settings, log } = stack;
  if ((await runningColors(stack)).length < 2) return;
  const serving = await servingColor(stack);
  const keep = await whichToKeep(stack, serving);
  if (keep === "abort") {
    throw new BothRunningError(`Aborted. ${BOTH_RUNNING}`, {
      next: "Look at both, then run this again with --keep blue or --keep green; nothing was stopped.",
    });
  }
  const other = getInactiveColor(keep);
  if (serving === keep) await repairLink(stack, keep);
  else {
    await log.step(`check the health of ${keep}`, () => healthCheck(stack, keep));
    await log.step(`switch nginx to ${keep}`, () => switchNginx(stack, keep));
  }
  try {
    await log.step(`verify ${keep} through nginx`, () => verifyNginxTraffic(stack, keep));
    await log.step(`mark ${keep} as active`, () => markActive(settings.activeColorFile, keep));
  } catch (error) {
    if (serving !== other) throw error; // there is nothing to go back to
    const from = { active: other, serves: true };
    await undo(error, () => log.step(`undo: switch nginx back to ${other}`, () => switchBack(stack, from)));
  }
  await log.step(`drain ${other}`, () => drainNginx(stack, other));
  await log.step(`stop ${other}`, () => stopContainer(stack, other));
}

async function main(stack: Stack): Promise<void> {
  const { settings, log } = stack;
  await log.step("read the state file", () => getActiveColor(settings.activeColorFile));
  await log.step("look for Docker", () => checkDocker(stack));
  await createFolders(settings);
  await log.step("bring up nginx and auth", () => bringUpFrontDoor(stack));
  await detectConflicts(stack);
  const from = await log.step("find the active color", () => findActive(stack));
  const { active } = from;
  const next = getInactiveColor(active);

  const replaced = await taggedImage(stack, next);
  await log.step(`build ${next}`, () => buildContainer(stack, next));
  const keepGoodBuild = () =>
    log.step(`undo: keep the build of ${next} before`, () => restoreImage(stack, next, replaced));
  try {
    await log.step(`check the port of ${next}`, () => checkPortAvailable(stack, next));
    await log.step(`start ${next}`, () => startContainer(stack, next));
    await log.step(`check the health of ${next}`, () => healthCheck(stack, next));
  } catch (error) {
    await undo(error, async () => {
      await log.step(`undo: stop ${next}`, () => stopContainer(stack, next));
      await keepGoodBuild();
    });
  }
  await log.step(`switch nginx to ${next}`, () => switchNginx(stack, next)); // takes itself back when it fails
  try {
    await log.step(`verify ${next} through nginx`, () => verifyNginxTraffic(stack, next));
    await log.step(`mark ${next} as active`, () => markActive(settings.activeColorFile, next));
  } catch (error) {
    await undo(error, async () => {
      await takeTrafficBack(stack, from, next);
      await keepGoodBuild();
    });
  }

  // From here on the release stands. It is marked already, so that an interrupted stop does no harm.
  await log.step(`drain ${active}`, () => drainNginx(stack, active));
  await log.step(`stop ${active}`, () => stopContainer(stack, active));
  await removeReplaced(stack, next, replaced);

  const image = await taggedImage(stack, next);
  log.info(`Released ${active} → ${next}: ${imageOf(settings, next)} (${image?.slice(0, 19)})`);
  log.info(log.steps());
  log.info("Go back with: npx tsx scripts/rollback.mts");
}

await runScript({ help: HELP, keep: true, main });
