import { parseArgs } from "node:util";
import { EXIT, LockedError, StateFileError, ToolError, UsageError } from "../errors.ts";
import { loadSettings } from "../settings.ts";
import { type Context, pause, readOnlyContext, stepsOf } from "./context.ts";
import { readLock, takeLock } from "./lock.ts";
import { createLog } from "./log.ts";
import { openLogFile } from "./log-file.ts";
import { notify } from "./notify.ts";
import { howItEnded, type RunRecord, type Verb } from "./record.ts";
import { onSignals } from "./signals.ts";
import { openStateDir } from "./state-dir.ts";

/** Seconds until the next attempt when a run holds the lock. */
const RETRY_SECONDS = 2;

/** When a task acts: as soon as it is due, only if it is due now, or at once. */
export type When = "due" | "if due" | "now";

/** What a script does after a release: it waits without the lock, then acts with it. It is no release, so it has no history entry. */
interface Task<Found> {
  /** Its name in the lock and in notifications. */
  verb: Verb;
  /** Printed for `--help`. */
  help: string;
  /** Waits until it is time to act; undefined when there is nothing to do. `left` is the record of a run of this task that did not finish. */
  wait(context: Context, when: When, left: RunRecord | undefined): Promise<Found | undefined>;
  /** Acts, with the lock; false when it must wait again, because what was found has changed. */
  act(context: Context, found: Found): Promise<boolean>;
}

function parse(): { when: When; quiet: boolean; help: boolean } {
  const options = {
    now: { type: "boolean", default: false },
    "if-due": { type: "boolean", default: false },
    quiet: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    const { now, "if-due": ifDue, ...rest } = parseArgs({ options }).values;
    if (now && ifDue) throw new Error("--now and --if-due exclude each other");
    return { ...rest, when: now ? "now" : ifDue ? "if due" : "due" };
  } catch (error) {
    throw new UsageError((error as Error).message, {
      next: "Run it with --help to see the options; nothing was changed.",
    });
  }
}

/** Runs a task from command line to exit code. A failure is also reported to NOTIFY_URL: nobody watches a background process. */
export async function runTask<Found>(task: Task<Found>): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  const started = performance.now();
  const stderr = createLog();
  try {
    const { when, quiet, help } = parse();
    if (help) return console.log(task.help);
    const settings = loadSettings(process.env, undefined, "nothing");
    openStateDir(settings);
    const log = createLog({ quiet, file: openLogFile(settings.logFile, stderr.warn) });
    const signal = onSignals(log);
    try {
      await untilDone(task, { ...readOnlyContext(settings, log), signal }, when);
    } catch (error) {
      log.failure(error);
      process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
      if (signal.aborted) return; // somebody asked it to end
      const { name: result, message } = error as Error;
      const seconds = Math.round((performance.now() - started) / 100) / 10;
      const { exitCode } = process;
      const notice = { result, message, exitCode, verb: task.verb, project: settings.project, seconds };
      await notify(settings, { ...notice, from: undefined, to: undefined }, log.warn);
    }
  } catch (error) {
    stderr.failure(error);
    process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
  }
}

/** Waits, takes the lock and acts. While a run holds the lock, waits again: that run may leave nothing to do. */
async function untilDone<Found>(task: Task<Found>, waiting: Context, when: When): Promise<void> {
  for (;;) {
    const left = await leftBehind(waiting, task.verb);
    const found = await task.wait(waiting, when, left);
    if (found === undefined) return;
    await leftBehind(waiting, task.verb);
    try {
      if (await actLocked(task, waiting, found)) return;
    } catch (error) {
      if (!(error instanceof LockedError)) throw error;
    }
    await pause(waiting, RETRY_SECONDS * 1000);
  }
}

/**
 * The record of an unfinished run of this task. One of a deploy or rollback is for the next of those to repair, and must stay as
 * it is. Throws StateFileError.
 */
async function leftBehind({ settings }: Context, verb: Verb): Promise<RunRecord | undefined> {
  const lock = await readLock(settings.lockFile);
  if (!lock?.record || lock.held) return undefined;
  if (lock.record.verb === verb && !lock.record.left) return lock.record;
  throw new StateFileError(`Not done: ${howItEnded(lock.record)}`, {
    next: "Run a release or a rollback: it repairs what that run left, and then this is done again.",
  });
}

async function actLocked<Found>(task: Task<Found>, waiting: Context, found: Found): Promise<boolean> {
  const { settings, log, signal } = waiting;
  const options = { ...waiting.options, dryRun: false };
  const lock = await takeLock(settings.lockFile, task.verb, log.warn);
  if (lock.unfinished()?.verb === task.verb) lock.clearUnfinished();
  try {
    const context = { settings, log, signal, lock, options, ...stepsOf(options, log, signal) };
    const done = await task.act(context, found);
    lock.end("nothing");
    return done;
  } catch (error) {
    lock.record({ result: (error as Error).name });
    lock.end("its own record"); // for the next run, or the next one of this task
    throw error;
  }
}
