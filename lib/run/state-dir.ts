import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  type Stats,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { StateFileError, UsageError } from "../errors.ts";
import type { Settings } from "../settings.ts";
import { handOver } from "../util/atomic.ts";
import { checkoutOwner, openToOthers, strangeOwner } from "./trust.ts";

/** What runs create in the state folder, besides the log. */
const OWN_NAMES = [
  "lock",
  "active-color",
  ".active-color",
  "apis.json",
  "history.jsonl",
  "vault.json",
  "taken-over.json",
];

const isRoot = (): boolean => process.getuid?.() === 0;

const here = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false });

function refuse(folder: string, why: string, next: string): never {
  throw new UsageError(`The state folder ${folder} cannot be trusted: ${why}`, {
    next: `${next}, or point STATE_DIR elsewhere; nothing was changed.`,
  });
}

/**
 * Rejects a state folder that others could have written to, or that is used for something else. A missing one is fine.
 * Throws UsageError, or StateFileError when it cannot be inspected.
 */
export function checkStateDir(settings: Settings): void {
  const { stateDir } = settings;
  let found: Stats | undefined;
  try {
    found = here(stateDir);
  } catch (error) {
    throw cannotUse(stateDir, error);
  }
  if (!found) return;
  if (found.isSymbolicLink())
    refuse(stateDir, "it is a symbolic link", "Set STATE_DIR to the folder that it points to");
  if (!found.isDirectory()) refuse(stateDir, "it is not a folder", "Move it away");
  const open = openToOthers(found);
  if (open) refuse(stateDir, open, `Check that its files are yours, then run: chmod 700 ${stateDir}`);
  const stranger = strangeOwner(found);
  if (stranger) {
    refuse(
      stateDir,
      stranger,
      `Check that its files are yours, then give it to the owner of the checkout: chown -R ${checkoutOwner().uid} ${stateDir}`,
    );
  }
  const foreign = foreignFileIn(settings);
  if (foreign !== undefined) {
    refuse(
      stateDir,
      `it is used for something else: it contains ${foreign}`,
      "Choose an empty or new folder",
    );
  }
}

/**
 * A file that no run creates, in a folder that no run has locked: the mode and owner of a foreign folder would be changed. A
 * folder that was locked before is a state folder, whatever a NAS or an editor has put there. Throws StateFileError.
 */
function foreignFileIn(settings: Settings): string | undefined {
  const { stateDir, lockFile } = settings;
  try {
    if (here(lockFile)?.isFile()) return undefined;
    return readdirSync(stateDir).find((name) => !ownNames(settings).includes(name));
  } catch (error) {
    throw cannotUse(stateDir, error);
  }
}

/** What runs create in the state folder, with the temporary files of killed runs. */
function ownNames({ stateDir, logFile }: Settings): string[] {
  const log = dirname(logFile) === stateDir ? basename(logFile) : "blue-green.log";
  const names = [...OWN_NAMES, log, `${log}.1`];
  return [...names, ...names.map((name) => `.${name}.tmp`)];
}

const cannotUse = (folder: string, error: unknown): StateFileError =>
  new StateFileError(`Cannot use the state folder ${folder}`, {
    details: String(error),
    next: `Make it writable for this user (is the disk full or read-only? did another user create it? then: chown -R ${checkoutOwner().uid} ${folder}), or point STATE_DIR elsewhere; nothing was changed.`,
  });

/** Creates a folder for its owner only. */
function makeOwn(folder: string): void {
  if (here(folder)) return;
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (here(folder)) return; // another run created it meanwhile
    throw error;
  }
  if (isRoot()) withOpen(folder, constants.O_DIRECTORY, giveToCheckoutOwner);
}

/** What root creates belongs to the owner of the checkout, whose runs need it too. */
function giveToCheckoutOwner(descriptor: number): void {
  const { uid, gid } = checkoutOwner();
  fchownSync(descriptor, uid, gid);
}

/** Uses one descriptor, so that the path cannot change in between; follows no link and never blocks. */
function withOpen(path: string, more: number, act: (descriptor: number) => void): void {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const descriptor = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | more);
  try {
    act(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Creates the state folder with mode 0700 if there is none, and rejects one that others could have written to, or that is
 * used for something else. As root, gives the folder and its files to the owner of the checkout: files that a killed root run
 * left would block the owner's next run. Throws UsageError, StateFileError.
 */
export function openStateDir(settings: Settings): void {
  const { stateDir } = settings;
  checkStateDir(settings);
  try {
    makeOwn(dirname(stateDir));
    makeOwn(stateDir);
    checkStateDir(settings);
    if (here(stateDir)?.uid !== process.getuid?.() && !isRoot()) return;
    withOpen(stateDir, constants.O_DIRECTORY, (folder) => {
      if (isRoot()) giveToCheckoutOwner(folder);
      fchmodSync(folder, 0o700);
    });
    if (!isRoot()) return;
    const files = ownNames(settings).map((name) => join(stateDir, name));
    for (const file of files.filter((path) => here(path)?.isFile()))
      withOpen(file, 0, (descriptor) => handOver(descriptor, file));
  } catch (error) {
    if (error instanceof UsageError || error instanceof StateFileError) throw error;
    throw cannotUse(stateDir, error);
  }
}
