import { closeSync, constants, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LockedError, StateFileError } from "../errors.ts";
import { handOver, makeFolder } from "../util/atomic.ts";
import { isOfThisHost, parentOf } from "../util/process.ts";
import { run } from "./command.ts";
import { originalRecord, type RunRecord, readRunRecord, type Verb } from "./record.ts";

/** Seconds that the last command of a killed run may continue before it is killed too. */
const LEFTOVER_SECONDS = 30;

/** Records are padded to this many bytes: on file systems that write in place, a full disk can still overwrite them. */
const RECORD_BYTES = 512;

/** What a run leaves in the lock file: nothing, an earlier run's record that is still unrecovered, or its own record. */
export type Leftover = "nothing" | "the earlier record" | "its own record";

/** The right to change one stack, held until this process and every command it started have ended. */
export interface Lock {
  /** Commands inherit it: the kernel frees the lock when the last of them ends. */
  readonly descriptor: number | undefined;
  /** The record of an earlier run that did not finish; undefined when there is none, or it was recovered. */
  unfinished(): RunRecord | undefined;
  /** Takes over an unfinished record that an older version left. */
  adopt(record: RunRecord): void;
  /** The unfinished run is recovered: forgets its record. */
  clearUnfinished(): void;
  /** Records, durably, what this run is about to do. */
  record(facts: Partial<RunRecord>): void;
  recorded(): RunRecord;
  /** The run has ended: leaves a record for the next one to recover, if any, and frees the lock. */
  end(leftover: Leftover): void;
}

/** The lock file's record, and whether a run holds the lock; undefined when the file does not exist. Never throws. */
export async function readLock(
  file: string,
): Promise<{ held: boolean; record: RunRecord | undefined } | undefined> {
  const there = await stat(file).catch(() => undefined);
  if (!there) return undefined;
  const record = readRunRecord(file);
  // Read the kernel's list instead of trying the lock: a run that starts during the try would find it locked.
  const locks = await readFile("/proc/locks", "utf8").catch(() => "");
  const locked = new RegExp(`FLOCK .*:${there.ino} `).test(locks);
  // The list has inodes without file systems, so another program's lock may have the same number.
  const held = locked && (!record || (await hasOpen(record.pid, file)) || (await holdersOf(file)).length > 0);
  return { held, record };
}

/** Does this process have the file open? Its pid may have been reused. `unseen` is the answer for a process that this user cannot inspect. */
async function hasOpen(pid: number, file: string, unseen = true): Promise<boolean> {
  try {
    const [path, descriptors] = [await realpath(file), await readdir(`/proc/${pid}/fd`)];
    const opened = descriptors.map((one) => readlink(`/proc/${pid}/fd/${one}`).catch(() => ""));
    return (await Promise.all(opened)).includes(path);
  } catch (error) {
    return unseen && error instanceof Error && "code" in error && error.code === "EACCES";
  }
}

const flock = async (descriptor: number, args: string[], deadline: number): Promise<number | null> => {
  const { exitCode, stderr } = await run("flock", [...args, "3"], { deadline, keepOpen: descriptor });
  if (exitCode === 0 || exitCode === 1) return exitCode;
  throw new Error(`flock: ${stderr.trim() || `exit code ${exitCode}`}`);
};

/** Takes the lock; waits only for the commands of a run that is itself dead. Throws LockedError. */
async function acquire(
  descriptor: number,
  file: string,
  warn: (message: string) => void,
  leftoverSeconds: number,
): Promise<void> {
  if ((await flock(descriptor, ["-n"], 10)) === 0) return;
  await sleep(200); // a run that just took the lock has not written its record yet
  const holder = readRunRecord(file);
  if (!holder || (await hasOpen(holder.pid, file))) throw locked(holder);
  warn(`the ${holder.verb} of ${holder.since} was killed; waiting for its last command to end`);
  const waited = (): Promise<number | null> =>
    flock(descriptor, ["-w", String(leftoverSeconds)], leftoverSeconds + 10);
  if ((await waited()) === 0) return;
  const successor = readRunRecord(file);
  if (successor && (await hasOpen(successor.pid, file))) throw locked(successor);
  // The command's deadline died with its run, and a hung build would block every later run.
  for (const pid of await holdersOf(file)) kill(pid);
  if ((await waited()) !== 0) throw locked(readRunRecord(file));
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It just ended, or belongs to another user.
  }
}

/**
 * The processes of a dead run that hold its lock file open as descriptor 3. The `flock` of a live run that waits for this
 * lock has the file open in the same way, and is not one of them.
 */
async function holdersOf(file: string): Promise<number[]> {
  const path = await realpath(file);
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0 && pid !== process.pid);
  const opened = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/fd/3`).catch(() => "")));
  const holders = pids.filter((_, i) => opened[i] === path);
  const orphaned = await Promise.all(
    holders.map(async (pid) => (await isOfThisHost(pid)) && (await isOrphan(pid, file, holders))),
  );
  return holders.filter((_, i) => orphaned[i]);
}

/** Is no ancestor of this process a live run? A run has the lock file open, but not as descriptor 3. */
async function isOrphan(pid: number, file: string, holders: readonly number[]): Promise<boolean> {
  for (let ancestor = await parentOf(pid); ancestor > 1; ancestor = await parentOf(ancestor))
    if (!holders.includes(ancestor) && (await hasOpen(ancestor, file, false))) return false;
  return true;
}

/**
 * Takes the lock of a stack: the kernel's lock on a file in the state folder, so that a crash cannot leave it locked.
 * `warn` reports that it waits for the last command of a killed run, `leftoverSeconds` at most; then it kills that command.
 * Throws LockedError when a live run holds it, StateFileError when the file cannot be written.
 */
export async function takeLock(
  file: string,
  verb: Verb,
  warn: (message: string) => void,
  leftoverSeconds = LEFTOVER_SECONDS,
): Promise<Lock> {
  let descriptor: number | undefined;
  try {
    await makeFolder(dirname(file));
    descriptor = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o644);
    handOver(descriptor, file);
    await acquire(descriptor, file, warn, leftoverSeconds);
    return lockOn(descriptor, originalRecord(readRunRecord(file)), {
      verb,
      pid: process.pid,
      since: new Date().toISOString(),
      result: undefined, // not the previous run's
    });
  } catch (error) {
    if (descriptor !== undefined) closeSync(descriptor);
    if (error instanceof LockedError) throw error;
    throw new StateFileError(`Cannot lock ${file}`, {
      details: String(error),
      next: "Make its folder writable (is the volume mounted read-only, or full?) and check that the command flock exists; nothing was changed.",
    });
  }
}

function locked(holder: RunRecord | undefined): LockedError {
  const who = holder
    ? `the ${holder.verb} with pid ${holder.pid}, since ${holder.since}`
    : "a run that just started";
  return new LockedError(`Another run holds the lock: ${who}`, {
    next: "Wait for it to end, then run this again; nothing was changed.",
  });
}

/** For dry runs and the status: takes no lock and writes nothing. */
export const noLock = (verb: Verb, unfinished: RunRecord | undefined): Lock => ({
  descriptor: undefined,
  unfinished: () => unfinished,
  adopt: () => undefined,
  clearUnfinished: () => undefined,
  record: () => undefined,
  recorded: () => ({ verb, pid: process.pid, since: new Date().toISOString() }),
  end: () => undefined,
});

function lockOn(descriptor: number, before: RunRecord | undefined, own: RunRecord): Lock {
  let unfinished = before;
  let recorded = own;
  const write = (record: RunRecord | undefined): void => {
    const text = record ? JSON.stringify({ ...record, updated: new Date().toISOString() }) : "";
    const written = writeSync(descriptor, text.padEnd(RECORD_BYTES), 0);
    ftruncateSync(descriptor, written); // the rest of a longer record would corrupt this one
    fsyncSync(descriptor);
  };
  // Until an earlier run is recovered, its facts must neither be lost nor pass for this run's own.
  const kept = (): RunRecord => {
    if (!unfinished) return recorded;
    const { verb, since, result } = unfinished;
    return { ...unfinished, ...recorded, left: { verb, since, result } };
  };
  const keep = (): void => write(kept());
  keep();
  return {
    descriptor,
    unfinished: () => unfinished,
    adopt: (record) => {
      unfinished = record;
      keep();
    },
    clearUnfinished: () => {
      unfinished = undefined;
      keep();
    },
    record: (facts) => {
      recorded = { ...recorded, ...facts };
      keep();
    },
    recorded: () => recorded,
    end: (leftover) => {
      const records = {
        nothing: undefined,
        "the earlier record": unfinished,
        "its own record": kept(),
      };
      write(records[leftover]);
      closeSync(descriptor);
    },
  };
}
