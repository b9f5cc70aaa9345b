import { InterruptedError, NginxReloadError, NotBackError, StopError, UnverifiedError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { type Entry, KILLED, readHistory, stands } from "../run/history.ts";
import { howItEnded, type RunRecord } from "../run/record.ts";
import type { Settings } from "../settings.ts";

/**
 * Seconds during which a second rollback still means the first, unfinished one: people repeat it at once, or look first.
 * After that, a rollback is taken to mean: leave the color that serves now.
 */
const INTENDED_SECONDS = 600;

/** The results of runs that ended half done. */
const HALF_DONE = [
  KILLED,
  ...[NginxReloadError, NotBackError, StopError, UnverifiedError].map((one) => one.name),
];

/** Did this run change what the next one means? A run that failed before it moved or repaired anything did not. */
const changedSomething = (run: Entry): boolean =>
  stands(run) || (HALF_DONE.includes(run.result) && run.from !== undefined && run.to !== undefined);

/** Seconds that a live run may go without updating its record: it verifies and drains without a word. */
const silence = ({ verifySeconds, drainSeconds }: Settings): number => Math.max(verifySeconds, drainSeconds);

/**
 * Does running an interrupted run again still mean the same? Only if its record was written just now, by itself or by a later
 * run that failed early, and no run has changed anything since. `silent`: seconds it may have lived on after its last update.
 */
export function isStillIntended(
  { since, updated = since }: RunRecord,
  runs: readonly Entry[],
  now = Date.now(),
  silent = 0,
): boolean {
  const seconds = (now - Date.parse(updated)) / 1000;
  // A time in the future means that the clock was set back: the record's age is unknown.
  if (!(seconds >= 0 && seconds <= INTENDED_SECONDS + silent)) return false;
  const began = Date.parse(since);
  // Entries from the future were written while the clock was wrong, so before this record.
  return !runs.some(
    (run) => changedSomething(run) && Date.parse(run.time) > began && Date.parse(run.time) <= now,
  );
}

/** Does this rollback repeat an interrupted one? Swapping once more would return to the color that the owner had left. */
export async function isRepeatedRollback(
  { settings, log }: Context,
  interrupted: RunRecord | undefined,
): Promise<boolean> {
  if (interrupted?.verb !== "rollback") return false;
  const runs = await readHistory(settings.historyFile);
  const intended = isStillIntended(interrupted, runs, Date.now(), silence(settings));
  if (!intended)
    log.warn(
      `${howItEnded(interrupted)}; it was too long ago, or another run has made changes since then: starting a new rollback from the serving color`,
    );
  return intended;
}

/**
 * Finishes an interrupted rollback with `act`. If this run is interrupted or killed too, the rollback stays unfinished;
 * otherwise the next one would swap once more. If its color proves unhealthy, the rollback is over, and the next one leaves
 * that color. Throws what `act` throws.
 */
export async function finishRollback(
  { lock }: Context,
  interrupted: RunRecord,
  act: () => Promise<void>,
): Promise<void> {
  lock.adopt({ ...interrupted, result: interrupted.result ?? KILLED }); // the history has it already
  try {
    await act();
  } catch (error) {
    if (!(error instanceof InterruptedError)) lock.clearUnfinished();
    throw error;
  }
  lock.clearUnfinished();
}
