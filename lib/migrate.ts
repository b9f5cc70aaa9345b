import { existsSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { replaceFile } from "./atomic.ts";
import { beginRecord, COLORS, isColor } from "./color.ts";
import { confined, type Here, type Identity } from "./confined.ts";
import { colorStates } from "./docker/container.ts";
import { checkEngine, serviceOf } from "./docker/engine.ts";
import { inspectImage, taggedImage } from "./docker/image.ts";
import { LockedError, StateFileError, ToolError } from "./errors.ts";
import { type Entry, parseHistory, readHistory } from "./history.ts";
import { isOfThisHost, Note } from "./lock.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";
import { assumeVaultUsed } from "./vault.ts";
import { visible, visibleJson } from "./visible.ts";
import { type Infer, z } from "./zod.ts";

/** How much of each old file is taken over, in bytes: any container can have made it as large as the disk. */
const [LOCK_BYTES, HISTORY_BYTES, LOG_BYTES] = [4096, 1024 * 1024, 1024 * 1024];

/**
 * Written once the old files are taken over; from then on none is taken over again, as one that came out of a backup.
 * `removed`: they are gone from their old place, or are to stay.
 */
const Done = z.object({ time: z.string(), from: z.string(), removed: z.boolean() });

/** Where versions before STATE_DIR kept their files: beside the state file, where containers can write. */
interface Old {
  folder: string;
  names: { color: string; lock: string; history: string; log: string };
  /** Another project may have used the same files: they are copied, and stay. */
  shared: boolean;
}

function oldPlace({ oldStateFile, activeColorFile }: Settings): Old {
  const color = basename(oldStateFile);
  const names = { color, lock: `${color}.lock`, history: "history.jsonl", log: "blue-green.log" };
  return { folder: dirname(oldStateFile), names, shared: oldStateFile !== activeColorFile };
}

/**
 * Begins the state folder of an installation: takes over, once, what versions before it left beside the state file, says
 * so, and removes it there. Killed at any instant it loses nothing, and the next run does it again: the old files go last.
 * Where the old folder is away, as with a vault that is not mounted, each run tries again until it is there.
 * Needs the lock. Throws LockedError when a run of such a version is at work, DockerError, StateFileError, what the file
 * system throws.
 */
export async function takeOverState(stack: Stack): Promise<void> {
  const { settings } = stack;
  const marker = join(settings.stateDir, "taken-over.json");
  const old = oldPlace(settings);
  const write = (done: Infer<typeof Done>) => replaceFile(marker, `${JSON.stringify(done)}\n`);
  try {
    let done = await readDone(marker);
    if (!done && (await takeOver(stack, old))) {
      done = { time: new Date().toISOString(), from: old.folder, removed: old.shared };
      await write(done);
    }
    if (done && !done.removed) {
      removeOld(stack, old);
      await write({ ...done, removed: true });
    }
  } catch (error) {
    if (error instanceof ToolError) throw error;
    throw new StateFileError(`Cannot set up the state folder ${settings.stateDir}`, {
      details: String(error),
      next: "Make room on its disk, or point STATE_DIR elsewhere, then run this again; what is there from before stays as it is.",
    });
  }
  await beginRecord(stack);
}

async function readDone(marker: string): Promise<Infer<typeof Done> | undefined> {
  try {
    return Done.parse(JSON.parse(await readFile(marker, "utf8")));
  } catch {
    return undefined;
  }
}

/** Works in the folder of the old files. Throws what the file system throws, also where it is not what it should be. */
const inOldFolder = <T>({ settings }: Stack, { folder }: Old, act: (here: Here) => T): T =>
  confined(folder, [settings.vaultPath, settings.oauthDataPath], false, act);

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";

/** What the old files say; "" for one that is not there, or is no regular file. Throws what the file system throws. */
function readOld(stack: Stack, old: Old) {
  const { names } = old;
  return inOldFolder(stack, old, (here) => {
    const attempt = <T>(name: string, act: () => T): T | undefined => {
      try {
        return act();
      } catch (error) {
        stack.log.warn(`${join(old.folder, name)} was not taken over: ${error}`);
        return undefined;
      }
    };
    const text = (name: string, act: () => Buffer | undefined): string =>
      attempt(name, act)?.toString() ?? "";
    const lock = text(names.lock, () => here.read(names.lock, LOCK_BYTES));
    return {
      lock,
      lockIdentity: lock ? attempt(names.lock, () => here.identity(names.lock)) : undefined,
      history: text(names.history, () => here.readEnd(names.history, HISTORY_BYTES)),
      color: text(names.color, () => here.read(names.color, LOCK_BYTES)).trim(),
      log: text(names.log, () => here.readEnd(names.log, LOG_BYTES)),
    };
  });
}

/** Gives whether it is done; not where the old folder cannot be read, or is missing although releases were made. */
async function takeOver(stack: Stack, old: Old): Promise<boolean> {
  const { settings, log, lock } = stack;
  let found: ReturnType<typeof readOld>;
  try {
    found = readOld(stack, old);
  } catch (error) {
    if (isMissing(error) && !(await isInUse(stack))) return true; // a new installation
    await assumeVaultUsed(settings); // with no history to tell it, an unmounted vault would pass for a new one
    log.warn(`not taken over from ${old.folder}: ${error}; the next run tries again`);
    return false;
  }
  const note = noteIn(found.lock);
  if (note && (await isAtWork(note, found.lockIdentity))) {
    throw new LockedError(
      `Another run holds the lock: the ${note.verb} with pid ${note.pid}, since ${note.since}, of an older version`,
      { next: "Wait for it to end, then run this again; nothing was changed." },
    );
  }
  const runs = parseHistory(found.history);
  if (runs.length > 0) {
    const lines = runs.map((run) => visibleJson(JSON.stringify(withoutTimes(run))));
    const since = (await readHistory(settings.historyFile)).map((run) => JSON.stringify(run)); // of a try that was killed
    await replaceFile(settings.historyFile, `${[...new Set([...lines, ...since])].join("\n")}\n`);
  }
  const isDefaultLog = settings.logFile === join(settings.stateDir, "blue-green.log");
  if (found.log && isDefaultLog) await replaceFile(`${settings.logFile}.1`, visible(found.log));
  // What this version has begun itself, or marked, is newer.
  const isNews = lock.unfinished()?.to === undefined && !existsSync(settings.recordFile);
  const left = note && isNews ? await trusted(stack, note) : undefined;
  if (left) lock.adopt(left);
  const what = [
    ...(runs.length > 0 ? [`the history of ${runs.length} runs`] : []),
    ...(found.log && isDefaultLog ? ["the log, as blue-green.log.1"] : []),
    ...(left ? [`what the ${left.verb} of ${left.since} left to be put right`] : []),
  ];
  if (old.shared && isColor(found.color)) {
    await beginRecord(stack, found.color);
    const { project, activeColorFile, oldStateFile } = settings;
    log.info(`the state file of ${project} is ${activeColorFile} from now on, not ${oldStateFile}`);
  }
  if (what.length > 0)
    log.info(`taken over from ${old.folder} into ${settings.stateDir}: ${what.join(", ")}`);
  return true;
}

/** Has this project released before? Throws DockerError. */
async function isInUse(stack: Stack): Promise<boolean> {
  await checkEngine(stack);
  const states = Object.values(await colorStates(stack));
  const images = await Promise.all(COLORS.map((color) => taggedImage(stack, color)));
  return states.some((state) => state !== "absent") || images.some((image) => image !== undefined);
}

/** By its times, what other projects have in the build cache would count as built by these runs. */
const withoutTimes = ({ seconds: _, steps: __, ...run }: Entry): Entry => run;

function noteIn(text: string): Note | undefined {
  try {
    return Note.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

const IMAGE_ID = /^sha256:[0-9a-f]{64}$/;

/**
 * What of an old note is gone by: that a release was cut off, and the image that its color had before. A container could
 * have written all of it, so it counts only with an image that this project built for that color: the tag can move to no
 * other. Throws DockerError.
 */
async function trusted(stack: Stack, note: Note): Promise<Note | undefined> {
  const { verb, pid, since, from, to, imageBefore, started } = note;
  const begun = Date.parse(since);
  if (verb !== "deploy" || !from || !to || from === to || !imageBefore || Number.isNaN(begun))
    return undefined;
  await checkEngine(stack);
  // Another text could be an option of docker's.
  const image = IMAGE_ID.test(imageBefore) ? await inspectImage(stack, imageBefore) : undefined;
  const isOwn = image?.project === stack.settings.project && image.service === serviceOf(to);
  if (isOwn && image.id === imageBefore)
    return { verb, pid, since: new Date(begun).toISOString(), from, to, imageBefore, started };
  stack.log.warn(
    `the image ${imageBefore} that the ${verb} of ${since} noted is none that this project built for ${to}: not gone by`,
  );
  return undefined;
}

/**
 * Is the run that wrote a note alive: a process of this host that runs one of the scripts and has the old lock file open?
 * A container can write any number into the note, and can link the name to a file that another process has open.
 */
async function isAtWork({ pid }: Note, lock: Identity | undefined): Promise<boolean> {
  const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  if (!/(deploy-blue-green|rollback)\.mts\0/.test(command) || !(await isOfThisHost(pid))) return false;
  if (!lock) return false;
  try {
    const descriptors = await readdir(`/proc/${pid}/fd`);
    const opened = descriptors.map((one) => stat(`/proc/${pid}/fd/${one}`).catch(() => undefined));
    return (await Promise.all(opened)).some((one) => one?.dev === lock.dev && one?.ino === lock.ino);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EACCES"; // another user's
  }
}

/** What cannot be removed is in nobody's way: it is not looked at again. */
function removeOld(stack: Stack, old: Old): void {
  const { names } = old;
  try {
    inOldFolder(stack, old, (here) => {
      for (const name of [names.lock, names.history, names.log, `${names.log}.1`]) here.remove(name);
    });
  } catch (error) {
    if (isMissing(error)) return; // as in a new installation
    stack.log.warn(`what was taken over from ${old.folder} was not removed there: ${error}`);
  }
}
