import { existsSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { COLORS, isColor } from "../color.ts";
import { expectEngine } from "../docker/engine.ts";
import { inspectImage, taggedImage } from "../docker/image.ts";
import { serviceOf } from "../docker/names.ts";
import { colorStates } from "../engine/colors.ts";
import { LockedError, StateFileError, ToolError } from "../errors.ts";
import { exposedFolders } from "../exposure.ts";
import type { Context } from "../run/context.ts";
import { type Entry, parseHistory, readHistory } from "../run/history.ts";
import { isOfThisHost } from "../run/process.ts";
import { RunRecord } from "../run/record.ts";
import type { Settings } from "../settings.ts";
import { replaceFile } from "../util/atomic.ts";
import { type ConfinedFolder, confined, type Identity } from "../util/confined.ts";
import { visible, visibleJson } from "../util/visible.ts";
import { type Infer, z } from "../util/zod.ts";
import { initializeColorRecord } from "./state-file.ts";
import { assumeVaultUsed } from "./vault.ts";

/** How much of each old file is migrated, in bytes: a container may have made it as large as the disk. */
const [LOCK_BYTES, HISTORY_BYTES, LOG_BYTES] = [4096, 1024 * 1024, 1024 * 1024];

/**
 * Written after the migration, which is never repeated: old files may return from a backup.
 * `removed`: the old files were removed, or must stay.
 */
const Done = z.object({ time: z.string(), from: z.string(), removed: z.boolean() });

/** Versions before STATE_DIR kept their files beside the state file, where containers can write. */
interface Old {
  folder: string;
  names: { color: string; lock: string; history: string; log: string };
  /** Another project may use the same files, so they are copied and stay. */
  shared: boolean;
}

/** undefined without a vault: those versions needed one. */
function oldPlace({ oldStateFile, activeColorFile }: Settings): Old | undefined {
  if (oldStateFile === undefined) return undefined;
  const color = basename(oldStateFile);
  const names = { color, lock: `${color}.lock`, history: "history.jsonl", log: "blue-green.log" };
  return { folder: dirname(oldStateFile), names, shared: oldStateFile !== activeColorFile };
}

/**
 * Migrates, once, the files that versions before STATE_DIR kept beside the state file, and reports it. Killed at any instant it
 * loses nothing, and the next run repeats it, because the old files are removed last. While the old folder is missing, as with
 * an unmounted vault, every run tries again. Needs the lock; does nothing in a dry run.
 * Throws LockedError while a run of an old version is in progress, DockerError, StateFileError.
 */
export async function migrateState(context: Context): Promise<void> {
  if (context.options.dryRun) return;
  const { settings } = context;
  const marker = join(settings.stateDir, "taken-over.json");
  const old = oldPlace(settings);
  const write = (done: Infer<typeof Done>) => replaceFile(marker, `${JSON.stringify(done)}\n`);
  try {
    let done = old && (await readDone(marker));
    if (old && !done && (await migrate(context, old))) {
      done = { time: new Date().toISOString(), from: old.folder, removed: old.shared };
      await write(done);
    }
    if (old && done && !done.removed) {
      removeOld(context, old);
      await write({ ...done, removed: true });
    }
  } catch (error) {
    if (error instanceof ToolError) throw error;
    throw new StateFileError(`Cannot set up the state folder ${settings.stateDir}`, {
      details: String(error),
      next: "Free some space on its disk, or point STATE_DIR elsewhere, and run this again; the old files were kept.",
    });
  }
  await initializeColorRecord(context);
}

async function readDone(marker: string): Promise<Infer<typeof Done> | undefined> {
  try {
    return Done.parse(JSON.parse(await readFile(marker, "utf8")));
  } catch {
    return undefined;
  }
}

/** Works in the folder of the old files. Throws what `confined` throws. */
const inOldFolder = <T>({ settings }: Context, { folder }: Old, act: (here: ConfinedFolder) => T): T =>
  confined(folder, exposedFolders(settings), false, act);

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";

/** The content of the old files; "" for a missing or irregular one. Throws what `confined` throws. */
function readOld(context: Context, old: Old) {
  const { names } = old;
  return inOldFolder(context, old, (here) => {
    const attempt = <T>(name: string, act: () => T): T | undefined => {
      try {
        return act();
      } catch (error) {
        context.log.warn(`${join(old.folder, name)} was not migrated: ${error}`);
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

/** Returns false when the old folder cannot be read, or is missing although there were releases. */
async function migrate(context: Context, old: Old): Promise<boolean> {
  const { settings, log, lock } = context;
  let found: ReturnType<typeof readOld>;
  try {
    found = readOld(context, old);
  } catch (error) {
    if (isMissing(error) && !(await isInUse(context))) return true; // a new installation
    await assumeVaultUsed(settings); // without a history, an unmounted vault would look like a new one
    log.warn(`not migrated from ${old.folder}: ${error}; the next run tries again`);
    return false;
  }
  const record = recordIn(found.lock);
  if (record && (await isInProgress(record, found.lockIdentity))) {
    throw new LockedError(
      `Another run holds the lock: the ${record.verb} with pid ${record.pid}, since ${record.since}, of an older version`,
      { next: "Wait for it to end, then run this again; nothing was changed." },
    );
  }
  const runs = parseHistory(found.history);
  if (runs.length > 0) {
    const lines = runs.map((run) => visibleJson(JSON.stringify(withoutTimes(run))));
    const since = (await readHistory(settings.historyFile)).map((run) => JSON.stringify(run)); // from a migration that was killed
    await replaceFile(settings.historyFile, `${[...new Set([...lines, ...since])].join("\n")}\n`);
  }
  const isDefaultLog = settings.logFile === join(settings.stateDir, "blue-green.log");
  if (found.log && isDefaultLog) await replaceFile(`${settings.logFile}.1`, visible(found.log));
  // A run or a mark of this version is newer.
  const isNews = lock.unfinished()?.to === undefined && !existsSync(settings.recordFile);
  const left = record && isNews ? await trusted(context, record) : undefined;
  if (left) lock.adopt(left);
  const what = [
    ...(runs.length > 0 ? [`the history of ${runs.length} runs`] : []),
    ...(found.log && isDefaultLog ? ["the log, as blue-green.log.1"] : []),
    ...(left ? [`the record of the unfinished ${left.verb} of ${left.since}`] : []),
  ];
  if (old.shared && isColor(found.color)) {
    await initializeColorRecord(context, found.color);
    const { project, activeColorFile, oldStateFile } = settings;
    log.info(`from now on, the state file of ${project} is ${activeColorFile}, not ${oldStateFile}`);
  }
  if (what.length > 0) log.info(`migrated from ${old.folder} to ${settings.stateDir}: ${what.join(", ")}`);
  return true;
}

/** Has this project been released before? Throws DockerError. */
async function isInUse(context: Context): Promise<boolean> {
  await expectEngine(context);
  const states = Object.values(await colorStates(context));
  const images = await Promise.all(COLORS.map((color) => taggedImage(context, color)));
  return states.some((state) => state !== "absent") || images.some((image) => image !== undefined);
}

/** Drops the durations, which decide what a run built: a forged one would claim other projects' build cache. */
const withoutTimes = ({ seconds: _, steps: __, ...run }: Entry): Entry => run;

/** The record in the content of an old lock; undefined when no script could have written it. */
export function recordIn(text: string): RunRecord | undefined {
  try {
    return RunRecord.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

const IMAGE_ID = /^sha256:[0-9a-f]{64}$/;

/**
 * The trustworthy part of an old record: that a release was interrupted, and the previous image of its color. A container could
 * have written all of it, so the image must be one that this project built for that color; the tag can move to no other.
 * Throws DockerError.
 */
export async function trusted(context: Context, record: RunRecord): Promise<RunRecord | undefined> {
  const { verb, pid, since, from, to, imageBefore, started } = record;
  const begun = Date.parse(since);
  if (verb !== "deploy" || !from || !to || from === to || !imageBefore || Number.isNaN(begun))
    return undefined;
  await expectEngine(context);
  // Any other text could be a docker option.
  const image = IMAGE_ID.test(imageBefore) ? await inspectImage(context, imageBefore) : undefined;
  const isOwn = image?.project === context.settings.project && image.service === serviceOf(to);
  if (isOwn && image.id === imageBefore)
    return { verb, pid, since: new Date(begun).toISOString(), from, to, imageBefore, started };
  context.log.warn(
    `the ${verb} of ${since} recorded the image ${imageBefore}, which this project did not build for ${to}: ignored`,
  );
  return undefined;
}

/**
 * Is the run that wrote the record alive: a process of this host that runs one of the scripts and has the old lock file open?
 * A container can write any pid, and can link the name to a file that another process has open. Those versions needed `flock`
 * and so Linux: there is a /proc.
 */
async function isInProgress({ pid }: RunRecord, lock: Identity | undefined): Promise<boolean> {
  const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  if (!/(deploy-blue-green|rollback)\.mts\0/.test(command) || !(await isOfThisHost(pid))) return false;
  if (!lock) return false;
  try {
    const descriptors = await readdir(`/proc/${pid}/fd`);
    const opened = descriptors.map((one) => stat(`/proc/${pid}/fd/${one}`).catch(() => undefined));
    return (await Promise.all(opened)).some((one) => one?.dev === lock.dev && one?.ino === lock.ino);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EACCES"; // another user's process
  }
}

/** Files that cannot be removed do no harm: they are not read again. */
function removeOld(context: Context, old: Old): void {
  const { names } = old;
  try {
    inOldFolder(context, old, (here) => {
      for (const name of [names.lock, names.history, names.log, `${names.log}.1`]) here.remove(name);
    });
  } catch (error) {
    if (isMissing(error)) return; // a new installation
    context.log.warn(`the old files in ${old.folder} were not removed: ${error}`);
  }
}
