import { InterruptedError, SIGNALS } from "../errors.ts";
import type { Log } from "./log.ts";

/** Turns the signals that ask a run to end into an aborted AbortSignal. Further signals change nothing. */
export function onSignals(log: Log): AbortSignal {
  const interruption = new AbortController();
  for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) {
    process.on(signal, () => {
      log.warn(
        interruption.signal.aborted
          ? `${signal}: already ending`
          : `${signal}: ending as soon as nothing is left half done`,
      );
      interruption.abort(new InterruptedError(signal));
    });
  }
  return interruption.signal;
}
