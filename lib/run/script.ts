import { EXIT, ToolError, VerdictError } from "../errors.ts";
import type { Needs } from "../places.ts";
import { loadSettings, type Settings } from "../settings.ts";
import type { Comparison } from "../traffic.ts";
import { visible } from "../util/visible.ts";
import { type Context, readOnlyContext, stepsOf } from "./context.ts";
import { addToHistory, DONE, DONE_INTERRUPTED, type Entry } from "./history.ts";
import { type Leftover, type Lock, noLock, readLock, takeLock } from "./lock.ts";
import { createLog, type Log } from "./log.ts";
import { openLogFile } from "./log-file.ts";
import { notify } from "./notify.ts";
import { type Options, parseOptions } from "./options.ts";
import type { RunRecord } from "./record.ts";
import { onSignals } from "./signals.ts";
import { checkStateDir, openStateDir } from "./state-dir.ts";

/** What a successful run did. */
export interface Outcome {
  /** One line: what serves now. */
  did: string;
  /** How to go back, if something was changed. */
  back?: string;
  /** The id of the serving image and its source revision, if they could be read. */
  image: string | undefined;
  revision: string | undefined;
  /** The responses to clients that it has judged. */
  traffic?: Comparison;
  /** It had nothing to do: no entry in the history; a notification only if an earlier run was killed. */
  changedNothing?: boolean;
}

/** How a run ended, for the history, notifications and hooks. */
export interface RunEnd {
  /** "done", "done, interrupted", or the name of the error. */
  result: string;
  exitCode: number;
  message: string;
  traffic?: Comparison | undefined;
}

interface Script {
  /** Its name in the lock, the log and notifications; it decides the options. */
  verb: "deploy" | "rollback";
  /** Printed for `--help`. */
  help: string;
  /** The folders that it cannot work without. */
  needs: Needs;
  main(context: Context): Promise<Outcome>;
  /** Prints what `--list` asks for, and changes nothing. */
  list?(context: Context): Promise<void>;
  /** Called after a failure, while the lock is still held, if it was taken. Must not throw. */
  failed(context: Context, end: RunEnd): Promise<void>;
}

/** Runs a script from command line to exit code: 0 when `main` returns, the error's own code when it throws. */
export async function runScript(script: Script): Promise<void> {
  // Writing to a closed pipe (`| head`) or a closed terminal fails; that must not leave a release half done.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  const log = createLog();
  try {
    const options = parseOptions(process.argv.slice(2), script.verb);
    if (options.help) return console.log(script.help);
    if (options.list && script.list)
      return await script.list(readOnlyContext(loadSettings(process.env, undefined, "nothing"), log));
    const image = options.image === undefined ? {} : { LOOP_API_IMAGE: options.image };
    const settings = loadSettings({ ...process.env, ...image }, undefined, script.needs);
    await (options.dryRun ? dryRun : realRun)(script, settings, options);
  } catch (error) {
    log.failure(error);
    process.exitCode = exitCodeOf(error);
  }
}

/** The exit codes of a run that did not begin its work. */
const NOTHING_FAILED: readonly number[] = [EXIT.usage, EXIT.locked];

const exitCodeOf = (error: unknown): number => (error instanceof ToolError ? error.exitCode : EXIT.failed);

/** Inspects everything and prints what would change. It has no lock, log file, history or notification. */
async function dryRun({ verb, main }: Script, settings: Settings, options: Options): Promise<void> {
  const log = createLog(options);
  settings.warnings.forEach(log.warn);
  checkStateDir(settings);
  const found = await readLock(settings.lockFile);
  if (found?.held)
    log.warn(`a ${found.record?.verb ?? "run"} is in progress: this plan reflects an intermediate state`);
  else if (found?.record)
    log.warn(
      "an earlier run left something to repair: this plan assumes the current state, so the steps after the repair may differ",
    );
  const lock = noLock(verb, found?.held ? undefined : found?.record);
  const signal = new AbortController().signal;
  await main({ settings, options, log, lock, signal, ...stepsOf(options, log, signal) });
  log.summary("Dry run: nothing was changed");
}

async function realRun({ verb, main, failed }: Script, settings: Settings, options: Options): Promise<void> {
  const started = performance.now();
  const secondsSoFar = (): number => Math.round((performance.now() - started) / 100) / 10;
  const stderr = createLog();
  openStateDir(settings);
  const log = createLog({ ...options, file: openLogFile(settings.logFile, stderr.warn) });
  settings.warnings.forEach(log.warn);
  const signal = onSignals(log);
  const steps = stepsOf(options, log, signal);
  const holding = (held: Lock): Context => ({ settings, options, log, lock: held, signal, ...steps });
  let lock: Lock | undefined;
  let outcome: Outcome | undefined;
  let ended: RunEnd = { result: DONE, exitCode: EXIT.done, message: "" };
  let leftover: Leftover = "nothing";
  let repairs = false;
  try {
    lock = await takeLock(settings.lockFile, verb, log.warn);
    repairs = lock.unfinished() !== undefined;
    outcome = await main(holding(lock));
    const cut = cutInWords(lock.recorded());
    const did = `${outcome.did}${cut}`;
    ended = { ...ended, message: did, traffic: outcome.traffic };
    log.summary(`${outcome.did} in ${secondsSoFar().toFixed(1)} s${cut}`);
    if (outcome.back) log.info(outcome.back);
    if (signal.aborted) {
      // Running it again would release, or go back, once more.
      const stands = `${signal.reason.message}, but the run was already complete: do not run it again`;
      log.warn(stands);
      const [exitCode, message] = [exitCodeOf(signal.reason), `${did}. ${stands}`];
      ended = { ...ended, result: DONE_INTERRUPTED, exitCode, message };
    }
  } catch (error) {
    log.failure(error);
    const { name, message } = error as Error;
    const traffic = error instanceof VerdictError ? error.traffic : undefined;
    ended = { result: name, exitCode: exitCodeOf(error), message, traffic };
    // The next run can repair what is half done, so it must find this run's record.
    const halfDone = !(error instanceof ToolError) || ended.exitCode === EXIT.manual;
    leftover = halfDone ? "its own record" : "the earlier record";
  }
  const seconds = secondsSoFar();
  ended.message = visible(ended.message);
  const { from, to, cut } = (outcome?.changedNothing ? undefined : lock?.recorded()) ?? {};
  try {
    if (lock && !outcome?.changedNothing)
      await addToHistory(settings.historyFile, entryOf(lock.recorded(), ended, outcome, seconds, log));
  } catch (error) {
    log.warn(`the history could not be written: ${error}`);
  }
  try {
    // Before the owner's hook, which may take long: a run that is killed in it has failed as well.
    if (!outcome) lock?.record({ result: ended.result });
  } catch (error) {
    log.warn(`the lock file could not be written: ${error}`);
  }
  if (!outcome && !NOTHING_FAILED.includes(ended.exitCode))
    await failed(holding(lock ?? noLock(verb, undefined)), ended);
  try {
    lock?.end(leftover);
  } catch (error) {
    log.warn(`the lock file could not be written: ${error}`);
  }
  process.exitCode = ended.exitCode;
  if (outcome?.changedNothing && !repairs) return; // a killed run is news
  const { project } = settings;
  const notice = { ...ended, verb, project, from, to, seconds, cut };
  await notify(settings, notice, log.warn);
}

/** Interrupted requests break the promise, so they belong to the outcome. */
const cutInWords = ({ cut = 0 }: RunRecord): string =>
  cut === 0 ? "" : `; ${cut} ${cut === 1 ? "request was" : "requests were"} interrupted at the drain limit`;

const entryOf = (
  { verb, since, from, to, source, cut }: RunRecord,
  { result, message, traffic }: RunEnd,
  { image, revision }: Partial<Outcome> = {},
  seconds: number,
  log: Log,
): Entry => ({
  time: since,
  verb,
  from,
  to,
  image,
  revision,
  source,
  seconds,
  cut,
  traffic,
  steps: log.durations(),
  result,
  message,
});
