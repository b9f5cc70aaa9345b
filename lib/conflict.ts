import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import type { Truth } from "./active.ts";
import { type Color, getInactiveColor, isColor, markActive, markCommands, readMarked } from "./color.ts";
import { dockerCommands } from "./docker/commands.ts";
import { restoreImage } from "./docker/image.ts";
import { discardRelease, STAND_DOWN, standDown } from "./docker/stop.ts";
import { BothRunningError } from "./errors.ts";
import { healthCheck, healthCommands, nginxReaches } from "./health.ts";
import { addToHistory } from "./history.ts";
import { howItEnded, type Note } from "./lock.ts";
import { mark } from "./mark.ts";
import { nginxCommands } from "./nginx/commands.ts";
import { drainNginx } from "./nginx/drain.ts";
import { switchBack, switchCommands, switchNginx } from "./nginx/switch.ts";
import { verifyNginxTraffic } from "./nginx/traffic.ts";
import { calm, type Stack } from "./stack.ts";
import { undo } from "./undo.ts";
import { awaitThat } from "./wait.ts";

/** How long, in seconds, one of two colours may take to answer well before a run gives up on both. */
const RESCUE_SECONDS = 15;

const BOTH_RUNNING = "Both blue and green are running. Keep which? (blue/green/abort)";

/**
 * Puts right what a run that was killed has left, or a restart that has woken a paused colour: the colour that nginx serves
 * stays, the other is drained and stands down, and after a killed deploy its image tag goes back to the last good build.
 * No question: it is known how both came to run. Where neither is well, that stays for `detectConflicts`.
 * Gives what is true then. Throws what its steps throw.
 */
export async function settleLeftovers(stack: Stack, found: Truth): Promise<Truth> {
  const { settings, lock, log } = stack;
  const left = lock.unfinished();
  const marked = await readMarked(settings);
  if (left) log.warn(`${howItEnded(left)}: putting right what it left`);
  const explained = left?.to !== undefined || settings.standby === "paused"; // else both were started by hand
  const truth = found.bothRun && !found.serves && explained ? await rescue(stack, found) : found;
  const { active, serves, bothRun } = truth;
  if (bothRun && !(serves && explained)) return truth;
  const inner = calm(stack);
  const other = getInactiveColor(active);
  if (bothRun && !left)
    log.warn(`${other} runs beside ${active}: it may have been paused, and woken by a restart`);
  if (bothRun) await drainAndStandDown(inner, other);
  // A release that was marked stands, also where it is not the one that is well now.
  if (left) await finishLeftovers(inner, left, [active, marked]);
  return { ...truth, bothRun: false };
}

/** Takes the build of a run before out of a rollback's reach, unless it is one of those to keep, and forgets that run. */
async function finishLeftovers(
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
    const killed = { time: since, verb, from, to, result: "killed", message: "Cut off before its end" };
    await addToHistory(settings.historyFile, killed).catch((error) => log.warn(`no history: ${error}`));
  });
}

/** Both run, and neither answers well through nginx: the one that does when it is asked itself gets the traffic. */
async function rescue(stack: Stack, truth: Truth): Promise<Truth> {
  // First the one that was marked last: a release that stands is not taken back because it boots more slowly.
  const candidates = [truth.active, getInactiveColor(truth.active)];
  let well: Color | undefined;
  const findWell = async (): Promise<boolean> => {
    for (const color of candidates) if (!well && (await nginxReaches(stack, color))) well = color;
    return well !== undefined;
  };
  // As after a restart of the host both may be starting still.
  await stack.look("find a color that is well", () => awaitThat(RESCUE_SECONDS, findWell));
  if (!well) return truth;
  const color = well;
  stack.log.warn(`nobody serves, and ${color} is well: it gets the traffic`);
  await stack.step(
    `give ${color} the traffic`,
    () => switchNginx(stack, color),
    switchCommands(stack, color),
  );
  await stack.step("set the state file right", () => markActive(stack, color), markCommands(stack, color));
  return { ...truth, active: color, serves: true };
}

async function drainAndStandDown(stack: Stack, color: Color): Promise<void> {
  const told = [stack, color, getInactiveColor(color)] as const;
  const { drain } = nginxCommands(...told);
  await stack.step(`drain ${color}`, () => drainNginx(stack, color), drain);
  const how = `${STAND_DOWN[stack.settings.standby]} ${color}`;
  await stack.step(how, () => standDown(stack, color), dockerCommands(...told).standDown);
}

/** The answer to "both are running": from --keep, or from the terminal. Without either it is "abort". */
async function whichToKeep(stack: Stack, { active, serves }: Truth): Promise<Color | "abort"> {
  const { options, log, signal } = stack;
  const now = `nginx serves ${serves ? active : "neither"} now`;
  if (options.keep !== undefined) {
    const kept = options.keep !== "serving" ? options.keep : serves ? active : "abort";
    log.warn(`Both blue and green are running, ${now}: --keep ${options.keep} means ${kept}`);
    return kept;
  }
  log.warn(`${BOTH_RUNNING} ${now}.`);
  if (!process.stdin.isTTY) return "abort";
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  terminal.on("SIGINT", () => process.kill(process.pid, "SIGINT")); // while it asks, Ctrl-C is but a key
  const ended = once(terminal, "close").then(() => "abort"); // Ctrl-D is an answer, too
  const asked = terminal.question("blue/green/abort: ", { signal }).catch(() => "abort");
  const answer = (await Promise.race([asked, ended])).trim();
  terminal.close();
  signal.throwIfAborted();
  if (!isColor(answer) && answer !== "abort")
    log.warn(`${JSON.stringify(answer)} is none of these: aborting`);
  return isColor(answer) ? answer : "abort";
}

/**
 * Spec `detect_conflicts`: when both colours run, keeps the one that is asked for. It gets the traffic before the other is stopped.
 * Gives what is true then. Throws BothRunningError on "abort", and what its steps throw; nothing is stopped then.
 */
export async function detectConflicts(stack: Stack, truth: Truth): Promise<Truth> {
  if (!truth.bothRun) return truth;
  const keep = await whichToKeep(stack, truth);
  if (keep === "abort") {
    throw new BothRunningError(`Aborted. ${BOTH_RUNNING}`, {
      next: "Look at both, then run this again with --keep serving, blue or green; nothing was stopped.",
    });
  }
  const other = getInactiveColor(keep);
  const { verify } = nginxCommands(stack, other, keep);
  if (!truth.serves || truth.active !== keep) {
    await stack.step(
      `check the health of ${keep}`,
      () => healthCheck(stack, keep),
      healthCommands(stack, keep),
    );
    await stack.step(`switch nginx to ${keep}`, () => switchNginx(stack, keep), switchCommands(stack, keep));
  }
  try {
    await stack.step(`verify ${keep} through nginx`, () => verifyNginxTraffic(stack, keep), verify);
    await mark(stack, keep);
  } catch (error) {
    if (!truth.serves || truth.active !== other) throw error; // there is nothing to go back to
    await undo(stack, error, (inner) =>
      inner.step(`switch nginx back to ${other}`, () => switchBack(inner, truth)),
    );
  }
  const inner = calm(stack);
  await drainAndStandDown(inner, other);
  const left = stack.lock.unfinished();
  if (left) await finishLeftovers(inner, left, [keep]);
  return { ...truth, active: keep, serves: true, bothRun: false };
}
