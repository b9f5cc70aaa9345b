import { setTimeout as sleep } from "node:timers/promises";
import type { Settings } from "../settings.ts";
import { type Lock, noLock } from "./lock.ts";
import type { Log } from "./log.ts";
import type { Options } from "./options.ts";
import type { RunRecord } from "./record.ts";

/** What every step of a run works on: the settings of one deployment, and the run that holds its lock. */
export interface Context {
  readonly settings: Settings;
  readonly options: Options;
  readonly log: Log;
  readonly lock: Lock;
  /** Aborted with an InterruptedError when a signal asks the run to end. */
  readonly signal: AbortSignal;
  /** Kills its docker commands when aborted: only for a context that changes nothing. */
  readonly commandSignal?: AbortSignal;
  /** A step that changes nothing, so a dry run takes it too. Throws InterruptedError, and what `act` throws. */
  inspect<T>(name: string, act: () => Promise<T>): Promise<T>;
  /**
   * A step that changes something. A dry run prints its name and `commands` instead: what an owner would type or see.
   * Throws InterruptedError, and what `act` throws.
   */
  change(name: string, act: () => Promise<unknown>, commands?: readonly string[]): Promise<void>;
}

/** A context without a lock whose changes do nothing. */
export const readOnlyContext = (settings: Settings, log: Log): Context => ({
  settings,
  options: { help: false, verbose: false, quiet: false, dryRun: true, acceptEmptyVault: false },
  log,
  lock: noLock("deploy", undefined),
  signal: new AbortController().signal,
  inspect: (_, act) => act(),
  change: async () => undefined,
});

/** The same run with steps that no signal interrupts: for undoing a change, and for all that follows the mark. */
export function uninterruptible(context: Context, prefix = ""): Context {
  const signal = new AbortController().signal;
  return { ...context, signal, ...stepsOf(context.options, context.log, signal, prefix) };
}

/** The steps of a run, or of a dry run. `prefix` goes before the name of each. */
export function stepsOf(
  { dryRun }: Options,
  log: Log,
  signal: AbortSignal,
  prefix = "",
): Pick<Context, "inspect" | "change"> {
  const inspect: Context["inspect"] = async (name, act) => {
    signal.throwIfAborted();
    return log.step(`${prefix}${name}`, act);
  };
  const print: Context["change"] = async (name, _, commands = []) =>
    log.info([`would ${prefix}${name}`, ...commands.map((command) => `  ${command}`)].join("\n"));
  const change: Context["change"] = async (name, act) => void (await inspect(name, act));
  return { inspect, change: dryRun ? print : change };
}

/** Waits `ms` milliseconds. Throws InterruptedError as soon as a signal asks the run to end. */
export async function pause({ signal }: Context, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
  signal.throwIfAborted();
}

/** Records facts. If that fails, as on a full disk, only warns: a switch or a drain must go on. */
export function tryRecord({ lock, log }: Pick<Context, "lock" | "log">, facts: Partial<RunRecord>): void {
  try {
    lock.record(facts);
  } catch (error) {
    log.warn(`the lock file could not be written: ${error}`);
  }
}
