import { chmodSync, lchownSync, mkdirSync, readdirSync, type Stats, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { StateFileError, UsageError } from "./errors.ts";
import { ROOT, type Settings } from "./settings.ts";

const isRoot = (): boolean => process.getuid?.() === 0;

/** Whoever can replace the files of the checkout decides what root runs: the same may own the state. */
const checkoutOwner = (): Stats => statSync(ROOT);

const here = (folder: string): Stats | undefined => statSync(folder, { throwIfNoEntry: false });

function refuse(folder: string, why: string, next: string): never {
  throw new UsageError(`The state folder ${folder} cannot be trusted: ${why}`, {
    next: `${next}, or point STATE_DIR elsewhere; nothing was changed.`,
  });
}

/**
 * Refuses a state folder that others could have written to; one that is not there yet is none.
 * Throws UsageError, StateFileError where it cannot be looked at.
 */
export function checkStateDir({ stateDir }: Settings): void {
  let found: Stats | undefined;
  try {
    found = here(stateDir);
  } catch (error) {
    throw cannotUse(stateDir, error);
  }
  if (!found) return;
  if (!found.isDirectory()) refuse(stateDir, "it is no folder", "Move it away");
  if ((found.mode & 0o022) !== 0) {
    const mode = (found.mode & 0o777).toString(8);
    refuse(
      stateDir,
      `its mode is ${mode}, so others can write to it`,
      `See that its files are yours, then run: chmod 700 ${stateDir}`,
    );
  }
  const owners = [0, process.getuid?.(), checkoutOwner().uid];
  if (!owners.includes(found.uid)) {
    refuse(
      stateDir,
      `it belongs to the user ${found.uid}, who is neither root, nor you, nor the owner of the checkout`,
      `See that its files are yours, then give it to the owner of the checkout: chown -R ${checkoutOwner().uid} ${stateDir}`,
    );
  }
}

const cannotUse = (folder: string, error: unknown): StateFileError =>
  new StateFileError(`Cannot use the state folder ${folder}`, {
    details: String(error),
    next: `Make it writable for the user of this run (is the disk full or read-only? was it made by another user? then: chown -R ${checkoutOwner().uid} ${folder}), or point STATE_DIR elsewhere; nothing was changed.`,
  });

/** Makes a folder for its owner only; what root makes belongs to the owner of the checkout, whose own runs need it, too. */
function makeOwn(folder: string): void {
  if (here(folder)) return;
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (here(folder)) return; // another run was faster
    throw error;
  }
  handOver(folder);
}

function handOver(path: string): void {
  if (!isRoot()) return;
  const { uid, gid } = checkoutOwner();
  lchownSync(path, uid, gid);
}

/**
 * Makes the state folder, with mode 0700, where there is none, and refuses one that others could have written to.
 * As root it gives folder and files to the owner of the checkout: what a run of root that was killed has left to root
 * would keep the owner's next run out. Throws UsageError, StateFileError.
 */
export function openStateDir(settings: Settings): void {
  const { stateDir } = settings;
  checkStateDir(settings);
  try {
    makeOwn(dirname(stateDir));
    makeOwn(stateDir);
    checkStateDir(settings);
    if (isRoot()) for (const path of [stateDir, ...filesOf(stateDir)]) handOver(path);
    if (here(stateDir)?.uid === process.getuid?.() || isRoot()) chmodSync(stateDir, 0o700);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw cannotUse(stateDir, error);
  }
}

const filesOf = (folder: string): string[] => readdirSync(folder).map((name) => join(folder, name));
