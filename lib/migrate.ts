import { readdir, readFile, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { replaceFile } from "./atomic.ts";
import { beginRecord } from "./color.ts";
import { confined, type Here } from "./confined.ts";
import { checkEngine } from "./docker/engine.ts";
import { inspectImage } from "./docker/image.ts";
import { LockedError, StateFileError, ToolError } from "./errors.ts";
import { parseHistory, readHistory } from "./history.ts";
import { endKeepers, isOfThisHost, Note } from "./lock.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";
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
    if (done === undefined) {
      await takeOver(stack, old);
      done = { time: new Date().toISOString(), from: old.folder, removed: old.shared };
      await write(done);
    }
    if (!done.removed) {
      removeOld(stack, old);
      await write({ ...done, removed: true });
    }
  } catch (error) {
    if (error instanceof ToolError) throw error;
    throw new StateFileError(`Cannot begin the state folder ${settings.stateDir}`, {
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

/** Works in the folder of the old files; undefined when there is none, or it is not what it should be. */
function inOldFolder<T>({ settings, log }: Stack, old: Old, act: (here: Here) => T): T | undefined {
  try {
    return confined(old.folder, [settings.vaultPath, settings.oauthDataPath], false, act);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT"))
      log.warn(`not taken over from ${old.folder}: ${error}`);
    return undefined;
  }
}

async function takeOver(stack: Stack, old: Old): Promise<void> {
  const { settings, log, lock } = stack;
  const { names } = old;
  const attempt = (name: string, act: () => Buffer | undefined): string => {
    try {
      return act()?.toString() ?? "";
    } catch (error) {
      log.warn(`${join(old.folder, name)} was not taken over: ${error}`);
      return "";
    }
  };
  const found = inOldFolder(stack, old, (here) => ({
    lock: attempt(names.lock, () => here.read(names.lock, LOCK_BYTES)),
    history: attempt(names.history, () => here.readEnd(names.history, HISTORY_BYTES)),
    color: attempt(names.color, () => here.read(names.color, LOCK_BYTES)),
    log: attempt(names.log, () => here.readEnd(names.log, LOG_BYTES)),
  }));
  if (!found) return;
  const note = noteIn(found.lock);
  if (note && (await isAtWork(note, join(old.folder, names.lock)))) {
    throw new LockedError(
      `Another run holds the lock: the ${note.verb} with pid ${note.pid}, since ${note.since}, of an older version`,
      { next: "Wait for it to end, then run this again; nothing was changed." },
    );
  }
  await endKeepers(join(old.folder, names.lock), log.warn);
  const runs = parseHistory(found.history);
  if (runs.length > 0) {
    const lines = runs.map((run) => visibleJson(JSON.stringify(run)));
    const since = (await readHistory(settings.historyFile)).map((run) => JSON.stringify(run)); // of a try that was killed
    await replaceFile(settings.historyFile, `${[...new Set([...lines, ...since])].join("\n")}\n`);
  }
  const isDefaultLog = settings.logFile === join(settings.stateDir, "blue-green.log");
  if (found.log && isDefaultLog) await replaceFile(`${settings.logFile}.1`, visible(found.log));
  const left = note && (await trusted(stack, note, old));
  if (left) lock.adopt(left);
  const what = [
    ...(runs.length > 0 ? [`the history of ${runs.length} runs`] : []),
    ...(found.log && isDefaultLog ? ["the log, as blue-green.log.1"] : []),
    ...(left ? [`what the ${left.verb} of ${left.since} left to be put right`] : []),
  ];
  if (old.shared && found.color) {
    const { project, activeColorFile, oldStateFile } = settings;
    log.info(`the state file of ${project} is ${activeColorFile} from now on, not ${oldStateFile}`);
  }
  if (what.length > 0)
    log.info(`taken over from ${old.folder} into ${settings.stateDir}: ${what.join(", ")}`);
}

function noteIn(text: string): Note | undefined {
  try {
    return Note.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/**
 * What of an old note may be believed: a container could write all of it. The image before counts only when it is one of
 * this project's. What another project may have noted counts only when it has such an image.
 */
async function trusted(stack: Stack, note: Note, { shared }: Old): Promise<Note | undefined> {
  const { imageBefore, ...rest } = note;
  if (!imageBefore) return shared ? undefined : note;
  await checkEngine(stack);
  const image = await inspectImage(stack, imageBefore);
  if (image && image.project === stack.settings.project && image.id === imageBefore) return note;
  stack.log.warn(
    `the image ${imageBefore} that the ${note.verb} of ${note.since} noted is none of this project's: not gone by`,
  );
  return shared ? undefined : rest;
}

/** Is the run that wrote a note alive, as a process of this host with the old lock file open? */
async function isAtWork({ pid }: Note, file: string): Promise<boolean> {
  if (!(await isOfThisHost(pid))) return false; // its owner may have written it here to block every run
  try {
    const path = await realpath(file).catch(() => file);
    const descriptors = await readdir(`/proc/${pid}/fd`);
    const opened = descriptors.map((one) => readlink(`/proc/${pid}/fd/${one}`).catch(() => ""));
    return (await Promise.all(opened)).some((one) => one === path || one === `${path} (deleted)`);
  } catch {
    // Another user's: what it runs can be seen, and a container cannot make a process of this host run that.
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    return /(deploy-blue-green|rollback)\.mts\0/.test(command);
  }
}

/** One that cannot be removed is in nobody's way: it is not looked at again. */
function removeOld(stack: Stack, { names, ...old }: Old): void {
  inOldFolder(stack, { names, ...old }, (here) => {
    for (const name of [names.lock, names.history, names.log, `${names.log}.1`]) here.remove(name);
  });
}
