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
  statSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { handOver } from "./atomic.ts";
import { StateFileError, UsageError } from "./errors.ts";
import { ROOT, type Settings } from "./settings.ts";

/** All that a run makes in the state folder, besides the log. */
const OWN_NAMES = ["lock", "active-color", "history.jsonl", "vault.json", "taken-over.json"];

const isRoot = (): boolean => process.getuid?.() === 0;

/** Whoever can replace the files of the checkout decides what root runs: the same may own the state. */
const checkoutOwner = (): Stats => statSync(ROOT);

const here = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false });

function refuse(folder: string, why: string, next: string): never {
  throw new UsageError(`The state folder ${folder} cannot be trusted: ${why}`, {
    next: `${next}, or point STATE_DIR elsewhere; nothing was changed.`,
  });
}

/**
 * Refuses a state folder that others could have written to, or that is used for something else; one that is not there yet
 * is none. Throws UsageError, StateFileError where it cannot be looked at.
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
    refuse(stateDir, "it is a symbolic link", "Name the folder that it leads to in STATE_DIR");
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
  const stranger = strangerIn(settings);
  if (stranger !== undefined) {
    refuse(
      stateDir,
      `it is used for something else, ${stranger} is in it`,
      "Name a folder that is empty or not there yet",
    );
  }
}

/**
 * A name that no run makes, in a folder that no run has locked yet: its mode and owner would be changed. One that was locked
 * is a state folder, whatever a NAS or an editor has put there since. Throws StateFileError.
 */
function strangerIn(settings: Settings): string | undefined {
  const { stateDir, lockFile } = settings;
  try {
    if (here(lockFile)?.isFile()) return undefined;
    return readdirSync(stateDir).find((name) => !ownNames(settings).includes(name));
  } catch (error) {
    throw cannotUse(stateDir, error);
  }
}

/** What a run makes in the state folder, with what it leaves there when it is killed while it replaces a file. */
function ownNames({ stateDir, logFile }: Settings): string[] {
  const log = dirname(logFile) === stateDir ? basename(logFile) : "blue-green.log";
  const names = [...OWN_NAMES, log, `${log}.1`];
  return [...names, ...names.map((name) => `.${name}.tmp`)];
}

const cannotUse = (folder: string, error: unknown): StateFileError =>
  new StateFileError(`Cannot use the state folder ${folder}`, {
    details: String(error),
    next: `Make it writable for the user of this run (is the disk full or read-only? was it made by another user? then: chown -R ${checkoutOwner().uid} ${folder}), or point STATE_DIR elsewhere; nothing was changed.`,
  });

/** Makes a folder for its owner only. */
function makeOwn(folder: string): void {
  if (here(folder)) return;
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (here(folder)) return; // another run was faster
    throw error;
  }
  if (isRoot()) withOpen(folder, constants.O_DIRECTORY, giveToCheckoutOwner);
}

/** What root makes belongs to the owner of the checkout, whose own runs need it, too. */
function giveToCheckoutOwner(descriptor: number): void {
  const { uid, gid } = checkoutOwner();
  fchownSync(descriptor, uid, gid);
}

/** By its descriptor, so that it is the one that was looked at; no link is followed, and nothing waited for. */
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
 * Makes the state folder, with mode 0700, where there is none, and refuses one that others could have written to, or that
 * is used for something else. As root it gives the folder and its own files to the owner of the checkout: what a run of root
 * that was killed has left to root would keep the owner's next run out. Throws UsageError, StateFileError.
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
