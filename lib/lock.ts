import { closeSync, constants, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { handOver, makeFolder } from "./atomic.ts";
import { COLORS } from "./color.ts";
import { run } from "./command.ts";
import { LockedError, StateFileError } from "./errors.ts";
import { type Infer, z } from "./zod.ts";

/** How long, in seconds, the last command of a run that was killed may go on before it is killed, too. */
const LEFTOVER_SECONDS = 30;

/** Always this many bytes, over what was there: where data is written in place, a disk that is full by then takes them. */
const NOTE_BYTES = 512;

const Color = z.enum(COLORS);
/** The scripts that take the lock. */
const Verb = z.enum(["deploy", "rollback"]);
export type Verb = Infer<typeof Verb>;

/** What a run has written about itself into the lock file, for whoever finds it locked, and for the run after a crash. */
export const Note = z.object({
  verb: Verb,
  pid: z.number(),
  /** ISO 8601, UTC. */
  since: z.string(),
  /** When this was written last: a run that is killed was alive then. */
  updated: z.string().optional(),
  from: Color.optional(),
  to: Color.optional(),
  /** The image that `to` had before this run built another; null for none. */
  imageBefore: z.string().nullable().optional(),
  /** The container of `to` was, or was about to be, made anew. */
  started: z.boolean().optional(),
  /** `to` was verified in full through nginx: it may be marked as active. */
  verified: z.boolean().optional(),
  /** Whose facts these are, while a run that came after it has not put them right; its own are `verb`, `pid`, `since`. */
  left: z.object({ verb: Verb, since: z.string(), result: z.string().optional() }).optional(),
  /** How many requests it cut at the drain limit. */
  cut: z.number().optional(),
  /** The error that it ended with, half done; a run that was killed could not say. */
  result: z.string().optional(),
});
export type Note = Infer<typeof Note>;

/** What became of a run that has left something to put right, in words. */
export const howItEnded = ({ verb, since, result }: Note): string =>
  `the ${verb} of ${since} ${result ? `ended with ${result}` : "was cut off before its end"}`;

/** What a run that ends leaves to the next: what it found unfinished itself and did not settle, or what it has begun. */
export type Leaves = "nothing" | "what it found" | "what it noted";

/** The right to change one stack, held until this process and every command it started have ended. */
export interface Lock {
  /** Commands keep it open: the kernel frees the lock when the last of them ends. */
  readonly descriptor: number | undefined;
  /** What a run before wrote that never came to its end; undefined when all ended well, or once it is settled. */
  unfinished(): Note | undefined;
  /** Takes over what a run of an older version has left to put right. */
  adopt(note: Note): void;
  /** What the unfinished run left is put right. */
  settle(): void;
  /** Remembers, through a crash, what this run is about to do. */
  note(facts: Partial<Note>): void;
  noted(): Note;
  /** The run has come to its end: leaves that for the next one to put right, and frees the lock. */
  end(leaves: Leaves): void;
}

/** Undefined where the last run has come to its end, or there was none. */
function read(file: string): Note | undefined {
  try {
    return Note.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return undefined;
  }
}

/** What the lock file says of a run that holds it, or that was cut off; undefined when all ended well. Never throws. */
export async function readLock(file: string): Promise<{ held: boolean; note: Note | undefined } | undefined> {
  const there = await stat(file).catch(() => undefined);
  if (!there) return undefined;
  const note = read(file);
  // The kernel's list, and not a try: for the moment of a try, a run that begins would find it locked.
  const locks = await readFile("/proc/locks", "utf8").catch(() => "");
  const locked = new RegExp(`FLOCK .*:${there.ino} `).test(locks);
  // It has the inode without its file system: elsewhere, another program's lock may be on the same number.
  const held = locked && (!note || (await hasOpen(note.pid, file)) || (await keepersOf(file)).length > 0);
  return { held, note };
}

/** Has this process the file open? Its number may be another's by now. `unseen`: what one that may not be looked into counts as. */
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

/** What a run left, as it noted it itself: a run since then that came to no end either is not what it was about. */
const asLeft = (note: Note | undefined): Note | undefined =>
  note?.left ? { ...note, result: undefined, ...note.left, left: undefined } : note;

/** Tries to get the lock; waits only for the commands of a run that is dead itself. Throws LockedError. */
async function acquire(descriptor: number, file: string, warn: (message: string) => void): Promise<void> {
  if ((await flock(descriptor, ["-n"], 10)) === 0) return;
  await sleep(200); // who has only just got it has not written yet who it is
  const holder = read(file);
  if (!holder || (await hasOpen(holder.pid, file))) throw locked(holder);
  warn(`the ${holder.verb} of ${holder.since} was killed; waiting for its last command to end`);
  const waited = (): Promise<number | null> =>
    flock(descriptor, ["-w", String(LEFTOVER_SECONDS)], LEFTOVER_SECONDS + 10);
  if ((await waited()) === 0) return;
  const heir = read(file);
  if (heir && (await hasOpen(heir.pid, file))) throw locked(heir);
  // Its deadline has died with the run, and a build that hangs would keep every later night out.
  for (const pid of await keepersOf(file)) kill(pid);
  if ((await waited()) !== 0) throw locked(read(file));
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended by itself, or is somebody else's.
  }
}

/**
 * The processes that a dead run has left and that keep its lock file open as descriptor 3. Not those of a run that lives:
 * another one that waits for this lock as well has a `flock` of its own, with the file open in the same way.
 */
async function keepersOf(file: string): Promise<number[]> {
  const path = await realpath(file);
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0 && pid !== process.pid);
  const opened = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/fd/3`).catch(() => "")));
  const keepers = pids.filter((_, i) => opened[i] === path);
  const orphaned = await Promise.all(
    keepers.map(async (pid) => (await isOfThisHost(pid)) && (await isOrphan(pid, file, keepers))),
  );
  return keepers.filter((_, i) => orphaned[i]);
}

/** Has it no ancestor that is a live run, which has the lock file open itself, and not as descriptor 3? */
async function isOrphan(pid: number, file: string, keepers: readonly number[]): Promise<boolean> {
  for (let ancestor = await parentOf(pid); ancestor > 1; ancestor = await parentOf(ancestor))
    if (!keepers.includes(ancestor) && (await hasOpen(ancestor, file, false))) return false;
  return true;
}

/** A process in a container has a number there as well, and is nobody that a run waits for, or ends. */
export async function isOfThisHost(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return (status.match(/^NSpid:\s*(.*)$/m)?.[1]?.split(/\s+/) ?? []).length === 1;
}

/** 0 where there is none, or the process has ended. */
async function parentOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(status.match(/^PPid:\s*(\d+)/m)?.[1] ?? 0);
}

/**
 * Takes the lock of a stack: the kernel's own, on a file in the state folder, so that a crash cannot leave it stuck.
 * `warn` is told when it has to wait for the last command of a run that was killed.
 * Throws LockedError when a live run holds it, StateFileError when the file cannot be written.
 */
export async function takeLock(file: string, verb: Verb, warn: (message: string) => void): Promise<Lock> {
  let descriptor: number | undefined;
  try {
    await makeFolder(dirname(file));
    descriptor = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o644);
    handOver(descriptor, file);
    await acquire(descriptor, file, warn);
    return lockOn(descriptor, asLeft(read(file)), {
      verb,
      pid: process.pid,
      since: new Date().toISOString(),
      result: undefined, // not that of the run before
    });
  } catch (error) {
    if (descriptor !== undefined) closeSync(descriptor);
    if (error instanceof LockedError) throw error;
    throw new StateFileError(`Cannot lock ${file}`, {
      details: String(error),
      next: "Make its folder writable (is the volume mounted read-only, or full?) and see that the command flock is there; nothing was changed.",
    });
  }
}

function locked(holder: Note | undefined): LockedError {
  const who = holder
    ? `the ${holder.verb} with pid ${holder.pid}, since ${holder.since}`
    : "one that has just begun";
  return new LockedError(`Another run holds the lock: ${who}`, {
    next: "Wait for it to end, then run this again; nothing was changed.",
  });
}

/** For what only looks: it waits for nobody, keeps nobody waiting, and writes nothing. */
export const noLock = (verb: Verb, unfinished: Note | undefined): Lock => ({
  descriptor: undefined,
  unfinished: () => unfinished,
  adopt: () => undefined,
  settle: () => undefined,
  note: () => undefined,
  noted: () => ({ verb, pid: process.pid, since: new Date().toISOString() }),
  end: () => undefined,
});

function lockOn(descriptor: number, before: Note | undefined, own: Note): Lock {
  let unfinished = before;
  let noted = own;
  const write = (note: Note | undefined): void => {
    const text = note ? JSON.stringify({ ...note, updated: new Date().toISOString() }) : "";
    const written = writeSync(descriptor, text.padEnd(NOTE_BYTES), 0);
    ftruncateSync(descriptor, written); // the rest of a longer one would make this one unreadable
    fsyncSync(descriptor);
  };
  // Until the leftovers of a run before are settled, the end of this one must not make them forgotten, nor look its own.
  const kept = (): Note => {
    if (!unfinished) return noted;
    const { verb, since, result } = unfinished;
    return { ...unfinished, ...noted, left: { verb, since, result } };
  };
  const keep = (): void => write(kept());
  keep();
  return {
    descriptor,
    unfinished: () => unfinished,
    adopt: (note) => {
      unfinished = note;
      keep();
    },
    settle: () => {
      unfinished = undefined;
      keep();
    },
    note: (facts) => {
      noted = { ...noted, ...facts };
      keep();
    },
    noted: () => noted,
    end: (leaves) => {
      const left = {
        nothing: undefined,
        "what it found": unfinished,
        "what it noted": kept(),
      };
      write(left[leaves]);
      closeSync(descriptor);
    },
  };
}
