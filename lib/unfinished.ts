import { InterruptedError, NginxReloadError, NotBackError, StopError, UnverifiedError } from "./errors.ts";
import { type Entry, KILLED, readHistory, stands } from "./history.ts";
import { howItEnded, type Note } from "./lock.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";

/**
 * How long, in seconds, a rollback that did not come to its end is still what its owner asks for with the next one: they
 * run it again at once, or look first. Later they mean the color that serves then, and want to leave that.
 */
const MEANT_SECONDS = 600;

/** What a run comes to that ended half done. */
const HALF_DONE = [
  KILLED,
  ...[NginxReloadError, NotBackError, StopError, UnverifiedError].map((one) => one.name),
];

/** Has this run changed what an owner means by the next one? One that failed before it moved or settled anything has not. */
const counts = (run: Entry): boolean =>
  stands(run) || (HALF_DONE.includes(run.result) && run.from !== undefined && run.to !== undefined);

/** How long, in seconds, a run may be alive without a word in its record: it verifies and drains without one. */
const silence = ({ verifySeconds, drainSeconds }: Settings): number => Math.max(verifySeconds, drainSeconds);

/**
 * Whether a run that did not come to its end is still what is meant by running it again: its record was written just now,
 * by itself or by a run that failed early since, and no run since has changed anything. `silent`: for so many seconds it
 * may have gone on after its last word.
 */
export function stillMeant(
  { since, updated = since }: Note,
  runs: readonly Entry[],
  now = Date.now(),
  silent = 0,
): boolean {
  const seconds = (now - Date.parse(updated)) / 1000;
  // In the future is a clock that was set back: how old it is cannot be known.
  if (!(seconds >= 0 && seconds <= MEANT_SECONDS + silent)) return false;
  const begun = Date.parse(since);
  // Entries from the future are of a clock that was wrong before: they came before it was set right.
  return !runs.some((run) => counts(run) && Date.parse(run.time) > begun && Date.parse(run.time) <= now);
}

/** Is it still the rollback of before that a rollback is asked for? To swap once more would then return to what its owner had left. */
export async function isAskedAgain({ settings, log }: Stack, cutOff: Note | undefined): Promise<boolean> {
  if (cutOff?.verb !== "rollback") return false;
  const meant = stillMeant(cutOff, await readHistory(settings.historyFile), Date.now(), silence(settings));
  if (!meant)
    log.warn(`${howItEnded(cutOff)}, and will not be finished now: rolling back from the serving color`);
  return meant;
}

/**
 * Finishes a rollback that was cut off. Interrupted or killed in that, it is still unfinished: forgotten, the next rollback
 * would swap once more. One whose color does not serve well is over, and the next one leaves that color. Throws what `act` throws.
 */
export async function finishing({ lock }: Stack, cutOff: Note, act: () => Promise<void>): Promise<void> {
  lock.adopt({ ...cutOff, result: cutOff.result ?? KILLED }); // the history has it already
  try {
    await act();
  } catch (error) {
    if (!(error instanceof InterruptedError)) lock.settle();
    throw error;
  }
  lock.settle();
}
