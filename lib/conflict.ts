import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import type { Truth } from "./active.ts";
import { type Color, getInactiveColor, isColor } from "./color.ts";
import { BothRunningError } from "./errors.ts";
import { healthCheck, healthCommands } from "./health.ts";
import { drainAndStandDown, finishLeftovers } from "./leftovers.ts";
import { mark } from "./mark.ts";
import { nginxCommands } from "./nginx/commands.ts";
import { switchBack, switchCommands, switchNginx } from "./nginx/switch.ts";
import { verifyNginxTraffic } from "./nginx/traffic.ts";
import { calm, type Stack } from "./stack.ts";
import { undo } from "./undo.ts";

const BOTH_RUNNING = "Both blue and green are running. Keep which? (blue/green/abort)";

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
 * Spec `detect_conflicts`: when both colors run, keeps the one that is asked for. It gets the traffic before the other is stopped.
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
