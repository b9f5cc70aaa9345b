import { type Entry, readHistory } from "./history.ts";
import { howItEnded, type Note } from "./lock.ts";
import type { Stack } from "./stack.ts";

/**
 * How long, in seconds, a rollback that did not come to its end is still what its owner asks for with the next one: they
 * run it again at once, or look first. Later they mean the color that serves then, and want to leave that.
 */
const MEANT_SECONDS = 600;

/** Whether a run that did not come to its end is still what is meant by running it again: just begun, and nothing run since. */
export function stillMeant({ since }: Note, runs: readonly Entry[], now = Date.now()): boolean {
  const begun = Date.parse(since);
  const seconds = (now - begun) / 1000;
  // In the future is a clock that was set back: how old it is cannot be known.
  if (!(seconds >= 0 && seconds <= MEANT_SECONDS)) return false;
  // Entries from the future are of a clock that was wrong before: they came before it was set right.
  return !runs.some(({ time }) => Date.parse(time) > begun && Date.parse(time) <= now);
}

/** Is it still the rollback of before that a rollback is asked for? To swap once more would then return to what its owner had left. */
export async function isAskedAgain({ settings, log }: Stack, cutOff: Note | undefined): Promise<boolean> {
  if (cutOff?.verb !== "rollback") return false;
  const meant = stillMeant(cutOff, await readHistory(settings.historyFile));
  if (!meant)
    log.warn(`${howItEnded(cutOff)}, and is not what is asked for now: going back from what serves`);
  return meant;
}
