import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import { type Color, getInactiveColor, isColor } from "../color.ts";
import { BothRunningError } from "../errors.ts";
import { switchBack, switchNginx } from "../nginx/switch.ts";
import { verifyNginxTraffic } from "../nginx/verify.ts";
import { type Context, uninterruptible } from "../run/context.ts";
import type { ActiveState } from "./active.ts";
import { healthCheck } from "./health.ts";
import { markActive } from "./mark.ts";
import { finishRecovery } from "./recovery.ts";
import { retire } from "./retire.ts";
import { undo } from "./undo.ts";

const BOTH_RUNNING = "Both blue and green are running. Keep which? (blue/green/abort)";

/** The answer, from --keep or from the terminal; "abort" without either. Throws InterruptedError. */
async function whichToKeep(context: Context, { active, serves }: ActiveState): Promise<Color | "abort"> {
  const { options, log, signal } = context;
  const now = `nginx serves ${serves ? active : "neither"} now`;
  if (options.keep !== undefined) {
    const kept = options.keep !== "serving" ? options.keep : serves ? active : "abort";
    log.warn(`Both blue and green are running, ${now}: --keep ${options.keep} means ${kept}`);
    return kept;
  }
  log.warn(`${BOTH_RUNNING} ${now}.`);
  if (!process.stdin.isTTY) return "abort";
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  terminal.on("SIGINT", () => process.kill(process.pid, "SIGINT")); // the prompt would swallow Ctrl-C
  const ended = once(terminal, "close").then(() => "abort"); // Ctrl-D
  const asked = terminal.question("blue/green/abort: ", { signal }).catch(() => "abort");
  const answer = (await Promise.race([asked, ended])).trim();
  terminal.close();
  signal.throwIfAborted();
  if (!isColor(answer) && answer !== "abort")
    log.warn(`${JSON.stringify(answer)} is not one of them: aborting`);
  return isColor(answer) ? answer : "abort";
}

/**
 * Spec `detect_conflicts`: when both colors run, keeps the chosen one. It gets the traffic before the other is stopped.
 * Returns the state after that. Throws BothRunningError on "abort", and what its steps throw; then nothing was stopped.
 */
export async function detectConflicts(context: Context, state: ActiveState): Promise<ActiveState> {
  if (!state.bothRun) return state;
  const keep = await whichToKeep(context, state);
  if (keep === "abort") {
    throw new BothRunningError("Both blue and green are running, and none was chosen to keep", {
      next: "Check both, then run this again with --keep serving, blue or green; nothing was stopped.",
    });
  }
  const other = getInactiveColor(keep);
  if (!state.serves || state.active !== keep) {
    await healthCheck(context, keep);
    await switchNginx(context, keep);
  }
  try {
    await verifyNginxTraffic(context, keep);
    await markActive(context, keep);
  } catch (error) {
    if (!state.serves || state.active !== other) throw error; // there is nothing to go back to
    await undo(context, error, (inner) => switchBack(inner, state));
  }
  const inner = uninterruptible(context);
  await retire(inner, other);
  const unfinished = context.lock.unfinished();
  if (unfinished) await finishRecovery(inner, unfinished, [keep]);
  return { ...state, active: keep, serves: true, bothRun: false };
}
