import { copyFile, lstat, mkdir, mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { run } from "../run/command.ts";

/** Seconds that git may take to compare the folder with its commit. */
const GIT_SECONDS = 10;

/** The checkout's settings that decide what counts as a change, with values that can do no harm. */
const HARMLESS =
  /^(core\.(?:filemode|symlinks|ignorecase|autocrlf|eol))\s(true|false|input|lf|crlf|native)$/gm;

/** Reads a regular file; a pipe could block forever. Throws when there is none. */
async function readPlain(file: string): Promise<string> {
  if (!(await lstat(file)).isFile()) throw new Error(`${file} is not a file`);
  return (await readFile(file, "utf8")).trim();
}

/** The folders of a checkout. */
interface Checkout {
  /** Its working tree. */
  top: string;
  /** Contains HEAD and the index. */
  own: string;
  /** Contains objects, branches and settings: the same folder, except in a linked worktree. */
  common: string;
}

/** Finds the checkout of a folder, without git. Throws when there is none. */
async function findCheckout(folder: string): Promise<Checkout> {
  for (let top = resolve(folder); ; top = dirname(top)) {
    const dot = join(top, ".git");
    const found = await lstat(dot).catch(() => undefined);
    if (!found && top === dirname(top)) throw new Error(`${folder} is in no git checkout`);
    if (!found) continue;
    const own = found.isDirectory() ? dot : resolve(top, (await readPlain(dot)).replace(/^gitdir: /, ""));
    const common = await readPlain(join(own, "commondir")).catch(() => ".");
    return { top, own, common: resolve(own, common) };
  }
}

/** The commit of HEAD. Throws when it cannot be read. */
async function headCommit({ own, common }: Checkout): Promise<string> {
  let name = await readPlain(join(own, "HEAD"));
  const branch = name.match(/^ref: (refs\/[^\s]+)$/)?.[1];
  if (branch && !branch.split("/").includes("..")) {
    name = await readPlain(join(common, branch)).catch(async () => {
      const packed = (await readPlain(join(common, "packed-refs"))).split("\n");
      return packed.find((line) => line.endsWith(` ${branch}`))?.split(" ")[0] ?? "";
    });
  }
  if (/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name)) return name;
  throw new Error("HEAD names no commit");
}

/**
 * Does git see no change in the folder? It is asked through a temporary repository with the checkout's index and objects and
 * nothing else. A checkout's settings and hooks can run commands (`core.fsmonitor`, filters, includes), and git reads none of
 * them this way. It does not enter submodules, whose settings it would read. Throws when it cannot be told.
 */
async function isClean(folder: string, checkout: Checkout, commit: string): Promise<boolean> {
  const { top, own, common } = checkout;
  const mine = await mkdtemp(join(tmpdir(), "loop-revision-"));
  try {
    for (const name of ["objects", "refs", "hooks"]) await mkdir(join(mine, name));
    await writeFile(join(mine, "HEAD"), `${commit}\n`);
    const format = commit.length === 64 ? "1\n[extensions]\nobjectformat = sha256\n" : "0\n";
    await writeFile(join(mine, "config"), `[core]\nrepositoryformatversion = ${format}`);
    const index = await lstat(join(own, "index"));
    if (!index.isFile()) return false;
    await copyFile(join(own, "index"), join(mine, "index"));
    // git rereads files as new as the index, so the copy must keep the index's time.
    await utimes(join(mine, "index"), index.atime, index.mtime);
    const environment = {
      PATH: process.env.PATH ?? "",
      GIT_DIR: mine,
      GIT_WORK_TREE: top,
      GIT_OBJECT_DIRECTORY: join(common, "objects"),
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_CONFIG_SYSTEM: "/dev/null",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_ATTR_NOSYSTEM: "1",
      GIT_OPTIONAL_LOCKS: "0",
    };
    const git = (...args: string[]) =>
      run("git", ["-C", top, ...args], { deadline: GIT_SECONDS, environment });
    // With --file, git only reads the settings as text; it neither applies them nor follows includes.
    const told = await git(
      "config",
      "--no-includes",
      "--file",
      join(common, "config"),
      "--get-regexp",
      "^core\\.",
    );
    const harmless = [...told.stdout.matchAll(HARMLESS)].flatMap(([, name, value]) => [
      "-c",
      `${name}=${value}`,
    ]);
    const exclude = join(common, "info/exclude");
    const excluding = (await lstat(exclude).catch(() => undefined))?.isFile() ? exclude : "/dev/null";
    const changes = await git(
      ...harmless,
      ...["-c", `core.excludesFile=${excluding}`],
      ...["status", "--porcelain", "--ignore-submodules=all", "--", resolve(folder)],
    );
    return changes.exitCode === 0 && changes.stdout.trim() === "";
  } finally {
    await rm(mine, { recursive: true, force: true });
  }
}

/** A revision for people: ten characters of the commit, and whether it was dirty. */
export const shortRevision = (revision: string): string =>
  `${revision.slice(0, 10)}${revision.endsWith("-dirty") ? "-dirty" : ""}`;

/**
 * The commit of a folder, with "-dirty" unless the folder was seen to be unchanged; undefined outside a git checkout. Runs
 * nothing that the checkout configures, even as root. Never throws.
 */
export async function sourceRevision(folder: string): Promise<string | undefined> {
  try {
    const checkout = await findCheckout(folder);
    const commit = await headCommit(checkout);
    const clean = await isClean(folder, checkout, commit).catch(() => false); // git may be missing
    return clean ? commit : `${commit}-dirty`;
  } catch {
    return undefined;
  }
}
