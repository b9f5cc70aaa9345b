import { setTimeout as sleep } from "node:timers/promises";
import { EXIT, InterruptedError, SIGNALS, ToolError } from "./errors.ts";
import { addToHistory, DONE, DONE_INTERRUPTED, type Entry } from "./history.ts";
import { type Leaves, type Lock, type Note, noLock, readLock, takeLock, type Verb } from "./lock.ts";
import { createLog, type Log } from "./log.ts";
import { openLogFile } from "./logfile.ts";
import { takeOverState } from "./migrate.ts";
import { notify } from "./notify.ts";
import { type Options, parseOptions } from "./options.ts";
import { loadSettings, type Needs, type Settings } from "./settings.ts";
import { checkStateDir, openStateDir } from "./statedir.ts";
import { visible } from "./visible.ts";

/** What every function of the spec works on: one deployment's settings, and the run that has its lock. */
export interface Stack {
  readonly settings: Settings;
  readonly options: Options;
  readonly log: Log;
  readonly lock: Lock;
  /** Aborted, with an InterruptedError, when the run is asked to end. */
  readonly signal: AbortSignal;
  /** One look, in a dry run as well. Throws InterruptedError instead when the run is asked to end, and what it throws. */
  look<T>(name: string, look: () => Promise<T>): Promise<T>;
  /**
   * One act of the protocol. A dry run only tells it, with its commands. Throws InterruptedError instead when the run is
   * asked to end, and what the act throws.
   */
  step(name: string, act: () => Promise<unknown>, commands?: readonly string[]): Promise<void>;
}

/** A stack to look at, without its lock. */
export const lookingAt = (settings: Settings, log: Log): Stack => ({
  settings,
  options: { help: false, verbose: false, quiet: false, dryRun: true, acceptEmptyVault: false },
  log,
  lock: noLock("deploy", undefined),
  signal: new AbortController().signal,
  look: (_, look) => look(),
  step: async () => undefined,
});

/** The same run where nothing interrupts it: while it takes back, and once the new color is marked. */
export function calm(stack: Stack, prefix = ""): Stack {
  const signal = new AbortController().signal;
  return { ...stack, signal, ...stepsOf(stack.options, stack.log, signal, prefix) };
}

/** The seam of a dry run: what looks is done, what acts is told. */
function stepsOf(
  { dryRun }: Options,
  log: Log,
  signal: AbortSignal,
  prefix = "",
): Pick<Stack, "look" | "step"> {
  const look: Stack["look"] = async (name, act) => {
    signal.throwIfAborted();
    return log.step(`${prefix}${name}`, act);
  };
  const tell: Stack["step"] = async (name, _, commands = []) =>
    log.info([`would ${prefix}${name}`, ...commands.map((command) => `  ${command}`)].join("\n"));
  const step: Stack["step"] = async (name, act) => void (await look(name, act));
  return { look, step: dryRun ? tell : step };
}

/** Waits so many milliseconds. Throws InterruptedError as soon as the run is asked to end. */
export async function pause({ signal }: Stack, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
  signal.throwIfAborted();
}

/** Turns the signals that ask a run to end into an aborted AbortSignal; further ones change nothing. */
function onSignals(log: Log): AbortSignal {
  const interruption = new AbortController();
  for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) {
    process.on(signal, () => {
      log.warn(
        interruption.signal.aborted
          ? `${signal}: already ending`
          : `${signal}: ending, as soon as nothing is left half done`,
      );
      interruption.abort(new InterruptedError(signal));
    });
  }
  return interruption.signal;
}

/** What a script has done. */
export interface Outcome {
  /** In one line. */
  did: string;
  /** How to take it back. */
  back: string;
  /** The id of the image that serves now, and the source revision it was built from, where they could be read. */
  image: string | undefined;
  revision: string | undefined;
}

interface Script {
  /** What it is called in the lock, the log and notifications. */
  verb: Verb;
  /** Printed for `--help`. */
  help: string;
  /** Whether it knows `--keep`. */
  keep: boolean;
  /** Which folders of the settings it does not work without. */
  needs: Needs;
  main(stack: Stack): Promise<Outcome>;
}

/** Runs a script from command line to exit code: 0 when `main` ends, the error's own code when it throws. */
export async function runScript(script: Script): Promise<void> {
  // Into `| head` and onto a terminal that is gone, writing fails: no reason to leave a release half done.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  const log = createLog();
  try {
    const options = parseOptions(process.argv.slice(2), script.keep);
    if (options.help) return console.log(script.help);
    const settings = loadSettings(process.env, undefined, script.needs);
    await (options.dryRun ? tellRun : realRun)(script, settings, options);
  } catch (error) {
    log.failure(error);
    process.exitCode = exitCodeOf(error);
  }
}

const exitCodeOf = (error: unknown): number => (error instanceof ToolError ? error.exitCode : EXIT.failed);

/** Looks at everything and tells what would be done: no lock, no log file, no history, no notification. */
async function tellRun({ verb, main }: Script, settings: Settings, options: Options): Promise<void> {
  const log = createLog(options);
  settings.warnings.forEach(log.warn);
  checkStateDir(settings);
  const found = await readLock(settings.lockFile);
  if (found?.held)
    log.warn(`a ${found.note?.verb ?? "run"} works on it now: this is what would be done in its midst`);
  else if (found?.note)
    log.warn("a run before has left something to put right: what is told after that is as things stand now");
  const lock = noLock(verb, found?.held ? undefined : found?.note);
  const signal = new AbortController().signal;
  await main({ settings, options, log, lock, signal, ...stepsOf(options, log, signal) });
  log.summary("Dry run: nothing was changed");
}

async function realRun({ verb, main }: Script, settings: Settings, options: Options): Promise<void> {
  const started = performance.now();
  const stderr = createLog();
  openStateDir(settings);
  const log = createLog({ ...options, file: openLogFile(settings.logFile, stderr.warn) });
  settings.warnings.forEach(log.warn);
  const signal = onSignals(log);
  let lock: Lock | undefined;
  let outcome: Outcome | undefined;
  let ended = { result: DONE as string, exitCode: EXIT.done as number, message: "" };
  let leaves: Leaves = "nothing";
  try {
    lock = await takeLock(settings.lockFile, verb, log.warn);
    const stack = { settings, options, log, lock, signal, ...stepsOf(options, log, signal) };
    await takeOverState(stack);
    outcome = await main(stack);
    const did = `${outcome.did}${cutInWords(lock.noted())}`;
    ended.message = did;
    log.info(log.steps());
    log.info(outcome.back);
    log.summary(did);
    if (signal.aborted) {
      // To run it again would be to release, or to go back, once more.
      const stands = `${signal.reason.message}, but what was done stands: there is nothing to run again`;
      log.warn(stands);
      ended = { result: DONE_INTERRUPTED, exitCode: exitCodeOf(signal.reason), message: `${did}. ${stands}` };
    }
  } catch (error) {
    log.failure(error);
    const { name, message } = error as Error;
    ended = { result: name, exitCode: exitCodeOf(error), message };
    // What an owner would have to look at, the next run can put right; so it has to find what this one was about.
    const halfDone = !(error instanceof ToolError) || ended.exitCode === EXIT.manual;
    leaves = halfDone ? "what it noted" : "what it found";
  }
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  ended.message = visible(ended.message);
  const { from, to, cut } = lock?.noted() ?? {};
  try {
    if (lock) await addToHistory(settings.historyFile, entryOf(lock.noted(), ended, outcome, seconds, log));
  } catch (error) {
    log.warn(`the history could not be written: ${error}`);
  }
  try {
    if (leaves === "what it noted") lock?.note({ result: ended.result });
    lock?.end(leaves);
  } catch (error) {
    log.warn(`the lock file could not be written: ${error}`);
  }
  process.exitCode = ended.exitCode;
  await notify(settings, { ...ended, verb, project: settings.project, from, to, seconds, cut }, log.warn);
}

/** Every request that was cut belongs to the outcome: it is the promise that was not kept. */
const cutInWords = ({ cut = 0 }: Note): string =>
  cut === 0 ? "" : `; ${cut} ${cut === 1 ? "request was" : "requests were"} cut at the drain limit`;

const entryOf = (
  { verb, since, from, to, cut }: Note,
  { result, message }: { result: string; message: string },
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
  seconds,
  cut,
  steps: log.durations(),
  result,
  message,
});
