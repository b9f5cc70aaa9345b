import { parseArgs } from "node:util";
import { EXIT, LockedError, ToolError, UsageError } from "../errors.ts";
import { loadSettings } from "../settings.ts";
import { type Context, pause, readOnlyContext, stepsOf } from "./context.ts";
import { takeLock } from "./lock.ts";
import { createLog } from "./log.ts";
import { openLogFile } from "./log-file.ts";
import { notify } from "./notify.ts";
import type { Verb } from "./record.ts";
import { onSignals } from "./signals.ts";
import { openStateDir } from "./state-dir.ts";

/** Seconds until the next attempt when a run holds the lock. */
const RETRY_SECONDS = 2;

/** What a script does after a release: it waits without the lock, then acts with it. It is no release, so it has no history entry. */
interface Task {
  /** Its name in the lock and in notifications. */
  verb: Verb;
  /** Printed for `--help`. */
  help: string;
  /** Waits until it is time to act, unless `now`; false when there is nothing to do. */
  wait(context: Context, now: boolean): Promise<boolean>;
  /** Acts, with the lock; false when it must wait again. */
  act(context: Context, now: boolean): Promise<boolean>;
}

function parse(): { now: boolean; quiet: boolean; help: boolean } {
  const options = {
    now: { type: "boolean", default: false },
    quiet: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new UsageError((error as Error).message, {
      next: "Run it with --help to see the options; nothing was changed.",
    });
  }
}

/** Runs a task from command line to exit code. A failure is also reported to NOTIFY_URL: nobody watches a background process. */
export async function runTask(task: Task): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  const started = performance.now();
  const stderr = createLog();
  try {
    const { now, quiet, help } = parse();
    if (help) return console.log(task.help);
    const settings = loadSettings(process.env, undefined, "nothing");
    openStateDir(settings);
    const log = createLog({ quiet, file: openLogFile(settings.logFile, stderr.warn) });
    const signal = onSignals(log);
    try {
      await untilDone(task, { ...readOnlyContext(settings, log), signal }, now);
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
async function untilDone(task: Task, waiting: Context, now: boolean): Promise<void> {
  const { settings, log, signal, options } = waiting;
  while (await task.wait(waiting, now)) {
    try {
      const lock = await takeLock(settings.lockFile, task.verb, log.warn);
      const acting = { ...options, dryRun: false };
      // The next deploy or rollback repairs what an interrupted one left, and ends this too.
      if (lock.unfinished()) return lock.end("the earlier record");
      const steps = stepsOf(acting, log, signal);
      const done = await task.act({ settings, log, signal, lock, options: acting, ...steps }, now);
      lock.end("nothing");
      if (done) return;
    } catch (error) {
      if (!(error instanceof LockedError)) throw error;
      await pause(waiting, RETRY_SECONDS * 1000);
    }
  }
}
