import type { Truth } from "./active.ts";
import { type Color, getInactiveColor, readMarked } from "./color.ts";
import { dockerCommands } from "./docker/commands.ts";
import { restoreImage } from "./docker/image.ts";
import { discardRelease, STAND_DOWN, standDown, stopContainer } from "./docker/stop.ts";
import { InterruptedError, ToolError } from "./errors.ts";
import { nginxReaches } from "./health.ts";
import { addToHistory, KILLED } from "./history.ts";
import { howItEnded, type Note } from "./lock.ts";
import { mark } from "./mark.ts";
import { nginxCommands } from "./nginx/commands.ts";
import { drainNginx } from "./nginx/drain.ts";
import { servingColor } from "./nginx/frontdoor.ts";
import { switchCommands, switchNginx } from "./nginx/switch.ts";
import { prove, startAgain, stopAgain } from "./proof.ts";
import { calm, type Stack } from "./stack.ts";
import { awaitThat } from "./wait.ts";

/** How long, in seconds, the marked color may take to answer well before another one gets the traffic. */
const RESCUE_SECONDS = 15;

/** How long, in seconds, the other one may take then: it has had the time of the marked one to boot. */
const OTHER_SECONDS = 2;

/**
 * Puts right what a run that was killed has left, or a restart that has woken a paused color: what was verified gets or
 * keeps the traffic, the other is drained and stands down, and after a killed deploy its image tag goes back to the last
 * good build. No question: it is known how both came to run. Where neither is well, and neither is of a release that was cut
 * off, that stays for `detectConflicts`.
 * Gives what is true then. Throws UnverifiedError, and what its steps throw.
 */
export async function settleLeftovers(stack: Stack, found: Truth): Promise<Truth> {
  const { settings, lock, log } = stack;
  const left = lock.unfinished();
  const marked = await readMarked(stack.settings);
  if (left) log.warn(`${howItEnded(left)}: putting right what it left`);
  const explained = left?.to !== undefined || settings.standby === "paused"; // else both were started by hand
  if (found.bothRun && !explained) return found;
  const rescued = found.rescue.length > 0 ? await rescue(stack, found) : found;
  const ofRelease = left?.verb === "deploy" && left.to === getInactiveColor(rescued.active);
  if (rescued.bothRun && !rescued.serves && !ofRelease) return rescued;
  const truth = await prove(stack, rescued);
  const { active, bothRun, proof } = truth;
  const inner = calm(stack);
  const other = getInactiveColor(active);
  const leaves = proof === "leave"; // then the other is where the run goes
  if (found.bothRun && bothRun && !left)
    log.warn(`${other} runs beside ${active}: it may have been paused, and woken by a restart`);
  if (bothRun && !leaves) await drainAndStandDown(inner, other);
  // Sick and alone: to take a build out of a rollback's reach, it must not run.
  if (left && !bothRun && !truth.serves && found.rescue.includes(other))
    await inner.step(`stop ${other}`, () => stopContainer(inner, other));
  // A release that was marked stands, also where it is not the one that is well now.
  if (left) await finishLeftovers(inner, left, [active, marked]);
  return { ...truth, bothRun: bothRun && leaves };
}

/** Takes the build of a run before out of a rollback's reach, unless it is one of those to keep, and forgets that run. */
export async function finishLeftovers(
  stack: Stack,
  { verb, since, from, to, imageBefore, started, result }: Note,
  keep: readonly (Color | undefined)[],
): Promise<void> {
  const { settings, lock, log } = stack;
  if (to && !keep.includes(to) && imageBefore !== undefined) {
    const takeOut = started ? discardRelease : restoreImage;
    await stack.step(`keep the build of ${to} before`, () => takeOut(stack, to, imageBefore ?? undefined));
  }
  await stack.step("note that it is put right", async () => {
    lock.settle();
    if (result) return; // it could still tell the history itself
    const killed = { time: since, verb, from, to, result: KILLED, message: "Cut off before its end" };
    await addToHistory(settings.historyFile, killed).catch((error) => log.warn(`no history: ${error}`));
  });
}

/**
 * Nobody serves: the marked color gets the traffic when it is well within RESCUE_SECONDS, started if it was stopped. Only
 * else another one that runs gets it, as an emergency measure: it is still to be proven.
 */
async function rescue(stack: Stack, truth: Truth): Promise<Truth> {
  const [first, ...others] = truth.rescue;
  if (!first) return truth;
  const start = await startForRescue(stack, first);
  const isWell = async (color: Color): Promise<boolean> =>
    (await servingColor(stack)) === color || (await nginxReaches(stack, color));
  let well: Color | undefined;
  // As after a restart of the host it may be starting still.
  await stack.look("find a color that is well", async () => {
    if (start !== "impossible" && (await awaitThat(RESCUE_SECONDS, () => isWell(first)))) well = first;
    for (const other of others)
      if (!well && (await awaitThat(OTHER_SECONDS, () => isWell(other)))) well = other;
  });
  if (start === "started" && well !== first) await stopAgain(stack, first);
  if (!well) return truth;
  const color = well;
  if ((await servingColor(stack)) !== color) {
    stack.log.warn(`nobody serves, and ${color} is well: it gets the traffic`);
    await stack.step(
      `give ${color} the traffic`,
      () => switchNginx(stack, color),
      switchCommands(stack, color),
    );
  }
  const isMarked = color === truth.marked;
  if (isMarked && (await readMarked(stack.settings)) !== color) await mark(stack, color);
  const bothRun = color === first ? others.length > 0 : truth.bothRun;
  return { ...truth, active: color, serves: true, proof: isMarked ? "nothing" : "verify", bothRun };
}

/** Starts a color where it does not run, and tells what came of it. Throws InterruptedError, and bugs. */
async function startForRescue(stack: Stack, color: Color): Promise<"runs" | "started" | "impossible"> {
  try {
    return (await startAgain(stack, color)) ? "started" : "runs";
  } catch (error) {
    if (!(error instanceof ToolError) || error instanceof InterruptedError) throw error;
    stack.log.warn(`${color} cannot be started: ${error.message}`);
    return "impossible";
  }
}

/** Waits until nothing uses a color, and stops or pauses it. Throws StopError. */
export async function drainAndStandDown(stack: Stack, color: Color): Promise<void> {
  const told = [stack, color, getInactiveColor(color)] as const;
  const { drain } = nginxCommands(...told);
  await stack.step(`drain ${color}`, () => drainNginx(stack, color), drain);
  const how = `${STAND_DOWN[stack.settings.standby]} ${color}`;
  await stack.step(how, () => standDown(stack, color), dockerCommands(...told).standDown);
}
