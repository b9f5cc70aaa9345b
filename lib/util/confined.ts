import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  opendirSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmdirSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";

/** How many entries of a folder are searched for leftovers: a container may have created millions. */
const ENTRIES_LOOKED_AT = 1000;

/** The identity of a file under any name. */
export type Identity = Pick<Stats, "dev" | "ino">;

/** The current working directory as a confined folder: bare names only, no symbolic links, no blocking. */
export interface ConfinedFolder {
  /** Reads a regular file of at most `limit` bytes; undefined when there is none. Throws what the file system throws. */
  read(name: string, limit: number): Buffer | undefined;
  /** Reads the last `limit` bytes of a regular file; undefined when there is none. Throws what the file system throws. */
  readEnd(name: string, limit: number): Buffer | undefined;
  /** The identity of a regular file; undefined when there is none. Throws what the file system throws. */
  identity(name: string): Identity | undefined;
  /** Replaces a file so that readers see the old or the new content, even after a power cut. Throws what the file system throws. */
  replace(name: string, content: string): void;
  /** Removes a regular file; anything else stays. Throws what the file system throws. */
  remove(name: string): void;
}

/**
 * Runs `act` in a folder whose path containers can replace with symbolic links at any instant, although this is root. Checking
 * a path before opening it would leave them time in between. So the process changes into the folder, part by part, asks the
 * kernel where it is, and uses bare names there. `act` must be synchronous, because the whole process has another working
 * directory meanwhile. `exposed` are the folders that containers can write to; links above them belong to the owner and are
 * followed. `make` creates missing folders below them. Throws what the file system and `act` throw.
 */
export function confined<T>(
  folder: string,
  exposed: readonly string[],
  make: boolean,
  act: (here: ConfinedFolder) => T,
): T {
  const back = currentFolder();
  try {
    enter(resolve(folder), exposed.map(real), make);
    return act({ read, readEnd, identity, replace, remove });
  } finally {
    leaveTo(back);
  }
}

/** The working directory may have been removed. */
function currentFolder(): string | undefined {
  try {
    return process.cwd();
  } catch {
    return undefined;
  }
}

function leaveTo(folder: string | undefined): void {
  try {
    process.chdir(folder ?? sep);
  } catch {
    process.chdir(sep);
  }
}

/** Not Node's own: macOS ignores upper and lower case in a path, and its working directory has the name on the disk. */
const realPath = realpathSync.native;

function real(path: string): string {
  try {
    return realPath(path);
  } catch {
    return path; // may be unmounted when only the status is read
  }
}

/** Is a path a folder itself, or inside it? */
export const isInside = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(folder.endsWith(sep) ? folder : `${folder}${sep}`);

function enter(folder: string, exposed: readonly string[], make: boolean): void {
  const parts = folder.split(sep).filter(Boolean);
  let at: string = sep;
  while (parts.length > 0 && !exposed.some((root) => isInside(at, root))) {
    const next = join(at, parts.shift() ?? "");
    if (make && parts.length === 0) makeFolder(next);
    at = realPath(next);
    if (at !== next && exposed.some((root) => at !== root && isInside(at, root)))
      throw new Error(`${next} leads to ${at}, which containers can replace: use that folder's own path`);
  }
  goInto(at, at);
  for (const part of parts) {
    if (make) makeFolder(part);
    at = join(at, part);
    goInto(part, at);
  }
}

/** Changes into a folder, and asks the kernel whether it is the right one. */
function goInto(folder: string, meant: string): void {
  process.chdir(folder);
  const seen = process.cwd();
  if (seen !== meant)
    throw new Error(`${meant} leads to ${seen}: a container may have placed a symbolic link there`);
}

/** Creates one folder, unless the name is taken. As root, gives it to the owner of its parent. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o755 });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return;
    throw error;
  }
  const made = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    giveToOwnerOf(dirname(path), made);
  } finally {
    closeSync(made);
  }
}

function giveToOwnerOf(folder: string, descriptor: number): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(folder);
  fchownSync(descriptor, uid, gid);
}

/** Without O_NONBLOCK, a container could block the run with a FIFO or a file lease. */
const LOOK = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

function withFile<T>(name: string, act: (descriptor: number, found: Stats) => T): T | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(bare(name), LOOK);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const found = fstatSync(descriptor);
    if (!found.isFile()) throw new Error(`${name} is not a regular file`);
    return act(descriptor, found);
  } finally {
    closeSync(descriptor);
  }
}

function read(name: string, limit: number): Buffer | undefined {
  return withFile(name, (descriptor, { size }) => {
    if (size > limit) throw new Error(`${name} has ${size} bytes, more than ${limit}`);
    return readAt(descriptor, 0, limit);
  });
}

function readEnd(name: string, limit: number): Buffer | undefined {
  return withFile(name, (descriptor, { size }) => readAt(descriptor, Math.max(0, size - limit), limit));
}

const identity = (name: string): Identity | undefined => withFile(name, (_, { dev, ino }) => ({ dev, ino }));

function readAt(descriptor: number, from: number, limit: number): Buffer {
  const content = Buffer.alloc(limit);
  let filled = 0;
  for (;;) {
    const count = readSync(descriptor, content, filled, limit - filled, from + filled);
    filled += count;
    if (count === 0 || filled === limit) return content.subarray(0, filled);
  }
}

function replace(name: string, content: string): void {
  removeLeftovers(name);
  // A name that no container can guess and occupy.
  const temporary = `.${bare(name)}.${randomBytes(8).toString("hex")}.tmp`;
  const file = openSync(
    temporary,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o644,
  );
  try {
    try {
      giveToOwnerOf(".", file);
      writeSync(file, content);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    moveOver(temporary, name);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  }
  const folder = openSync(".", constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(folder); // without this, a power cut may undo a rename that was already reported as done
  } finally {
    closeSync(folder);
  }
}

function moveOver(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    // Remove an empty folder in its place. For anything else, the first error says more.
    try {
      rmdirSync(to);
    } catch {
      throw error;
    }
    renameSync(from, to);
  }
}

/** A run killed during a replacement leaves its temporary file. */
function removeLeftovers(name: string): void {
  const folder = opendirSync(".");
  const leftovers: string[] = [];
  try {
    for (let i = 0; i < ENTRIES_LOOKED_AT; i++) {
      const entry = folder.readSync();
      if (!entry) break;
      const between = entry.name.startsWith(`.${name}.`) && entry.name.slice(name.length + 2);
      if (between && /^[0-9a-f]{16}\.tmp$/.test(between)) leftovers.push(entry.name);
    }
  } finally {
    folder.closeSync();
  }
  for (const leftover of leftovers) remove(leftover);
}

function remove(name: string): void {
  if (lstatSync(bare(name), { throwIfNoEntry: false })?.isFile()) unlinkSync(name);
}

/** A name with a slash would lead out of the folder. */
function bare(name: string): string {
  if (basename(name) !== name || name === "..") throw new Error(`${name} is not a bare file name`);
  return name;
}
