import { closeSync, constants, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LockedError, StateFileError } from "../errors.ts";
import { handOver, makeFolder } from "../util/atomic.ts";
import { tryLock, waitForLock } from "./flock.ts";
import { hasOpen, inheritorsOf, isLocked, isOfThisHost, parentOf } from "./process.ts";
import { originalRecord, type RunRecord, readRunRecord, type Verb } from "./record.ts";

/** Seconds that the last command of a killed run may continue before it is killed too. */
export const LEFTOVER_SECONDS = 30;

/** Records are padded to this many bytes: on file systems that write in place, a full disk can still overwrite them. */
const RECORD_BYTES = 1024;

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
  const locked = await isLocked(there.ino);
  if (locked === undefined) return { held: !!record && (await hasOpen(record.pid, file)), record };
  const held = locked && (!record || (await hasOpen(record.pid, file)) || (await holdersOf(file)).length > 0);
  return { held, record };
}

/** Takes the lock; waits only for the commands of a run that is itself dead. Throws LockedError. */
async function acquire(
  descriptor: number,
  file: string,
  warn: (message: string) => void,
  leftoverSeconds: number,
): Promise<void> {
  if (await tryLock(descriptor)) return;
  await sleep(200); // a run that just took the lock has not written its record yet
  let holder = readRunRecord(file);
  if (holder?.verb === "end-sessions") warn("waiting for the end of the previous color's sessions");
  // Owners must not be locked out by what nobody started by hand.
  while (holder?.verb === "end-sessions" && (await hasOpen(holder.pid, file))) {
    if (await waitForLock(descriptor, 1)) return;
    holder = readRunRecord(file);
  }
  if (!holder || (await hasOpen(holder.pid, file))) throw locked(holder);
  warn(`the ${holder.verb} of ${holder.since} was killed; waiting for its last command to end`);
  if (await waitForLock(descriptor, leftoverSeconds)) return;
  const successor = readRunRecord(file);
  if (successor && (await hasOpen(successor.pid, file))) throw locked(successor);
  // The command's deadline died with its run, and a hung build would block every later run.
  for (const pid of await holdersOf(file)) kill(pid);
  if (!(await waitForLock(descriptor, leftoverSeconds))) throw locked(readRunRecord(file));
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It just ended, or belongs to another user.
  }
}

/**
 * The processes of a dead run that inherited its lock file. The attempt of a live run that waits for this lock has inherited
 * the file in the same way, and is not one of them.
 */
async function holdersOf(file: string): Promise<number[]> {
  const inheritors = await inheritorsOf(file);
  const orphaned = await Promise.all(
    inheritors.map(async (pid) => (await isOfThisHost(pid)) && (await isOrphan(pid, file, inheritors))),
  );
  return inheritors.filter((_, i) => orphaned[i]);
}

/** Is no ancestor of this process a live run? A run has the lock file open, but not as descriptor 3. */
async function isOrphan(pid: number, file: string, inheritors: readonly number[]): Promise<boolean> {
  for (let ancestor = await parentOf(pid); ancestor > 1; ancestor = await parentOf(ancestor))
    if (!inheritors.includes(ancestor) && (await hasOpen(ancestor, file, false))) return false;
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
      next: "Fix what it says (is the volume mounted read-only, or full?) and run this again; nothing was changed.",
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

/** May nginx's old workers serve both colors? See `RunRecord.sharedWorkers`. */
export const haveSharedWorkers = (lock: Lock): boolean =>
  (lock.recorded().sharedWorkers ?? lock.unfinished()?.sharedWorkers) === true;

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
