import { fchownSync, statSync } from "node:fs";
import { mkdir, open, rename, rm, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** One fixed name per target, so that the next run overwrites what a killed run left. */
const temporary = (path: string): string => join(dirname(path), `.${basename(path)}.tmp`);

/** Without this, a power cut may undo a rename that was already reported as done. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * As root, gives an open file to the owner of its folder, because that owner's runs must be able to write it too.
 * Throws what the file system throws.
 */
export function handOver(descriptor: number, path: string): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(dirname(path));
  fchownSync(descriptor, uid, gid);
}

/** Replaces a file so that readers see the old or the new content, even after a power cut. Throws what the file system throws. */
export async function replaceFile(path: string, content: string, mode = 0o644): Promise<void> {
  const file = await open(temporary(path), "w", mode);
  try {
    await file.chmod(mode); // a file that a killed run left may have another
    handOver(file.fd, path);
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary(path), path);
  await syncFolder(path);
}

/** Points a symbolic link at a target; the link exists at every instant. Throws what the file system throws. */
export async function replaceLink(path: string, target: string): Promise<void> {
  await rm(temporary(path), { force: true });
  await symlink(target, temporary(path));
  await rename(temporary(path), path);
  await syncFolder(path);
}

/**
 * Creates one folder, unless it exists; its parent must exist. Not recursive: below /proc, where no parent can be created,
 * Node would try forever. Throws what the file system throws.
 */
export async function makeFolder(path: string, mode = 0o755): Promise<void> {
  await mkdir(path, { mode }).catch((error) => {
    if (error.code !== "EEXIST") throw error;
  });
}
