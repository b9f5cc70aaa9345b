import { fchownSync, statSync } from "node:fs";
import { mkdir, open, rename, rm, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** One fixed name per target: what a killed run leaves is overwritten by the next, never collected. */
const temporary = (path: string): string => join(dirname(path), `.${basename(path)}.tmp`);

/** Without this a power cut may undo a rename that was already reported as done. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Gives an open file to the owner of its folder, where root has made it: the owner's own runs have to write to it, too.
 * Throws what the file system throws.
 */
export function handOver(descriptor: number, path: string): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(dirname(path));
  fchownSync(descriptor, uid, gid);
}

/** Replaces a file so that readers see the old or the new content, also after a power cut. Throws what the file system throws. */
export async function replaceFile(path: string, content: string, mode = 0o644): Promise<void> {
  const file = await open(temporary(path), "w", mode);
  try {
    await file.chmod(mode); // one that a killed run left may have another
    handOver(file.fd, path);
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary(path), path);
  await syncFolder(path);
}

/** Points a symbolic link at a target; at no instant is there no link. Throws what the file system throws. */
export async function replaceLink(path: string, target: string): Promise<void> {
  await rm(temporary(path), { force: true });
  await symlink(target, temporary(path));
  await rename(temporary(path), path);
  await syncFolder(path);
}

/**
 * Makes one folder, unless it is there; its parent must be. Not recursively: where a parent can never be made, as below
 * /proc, Node goes on trying for ever. Throws what the file system throws.
 */
export async function makeFolder(path: string, mode = 0o755): Promise<void> {
  await mkdir(path, { mode }).catch((error) => {
    if (error.code !== "EEXIST") throw error;
  });
}
