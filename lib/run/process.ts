import { readdir, readFile, readlink, realpath } from "node:fs/promises";
import { which } from "zx/core";
import { run } from "./command.ts";

/**
 * What can be learned about other processes: from /proc where there is one, else from lsof and ps, as on macOS. Where there is
 * neither, nothing is known, and the callers assume what does no harm.
 */

/** Seconds for lsof and ps. */
const QUERY_SECONDS = 10;

const hasProc = (): Promise<boolean> =>
  readdir("/proc/self/fd").then(
    () => true,
    () => false,
  );

const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && "code" in error && error.code === code;

/** The output of a command; undefined when it is missing, fails or finds nothing. */
async function ask(command: string, ...args: string[]): Promise<string | undefined> {
  const output = await run(command, args, { deadline: QUERY_SECONDS }).catch(() => undefined);
  return output?.exitCode === 0 ? output.stdout : undefined;
}

/** Does a process exist? Its pid may have been reused. */
export function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return hasCode(error, "EPERM");
  }
}

/**
 * Does a process have a file open? `unseen` is the answer for a process that this user cannot inspect, and for an existing one
 * where neither /proc nor lsof can tell.
 */
export async function hasOpen(pid: number, file: string, unseen = true): Promise<boolean> {
  if (!exists(pid)) return false;
  if (await hasProc()) {
    try {
      const [path, descriptors] = [await realpath(file), await readdir(`/proc/${pid}/fd`)];
      const opened = descriptors.map((one) => readlink(`/proc/${pid}/fd/${one}`).catch(() => ""));
      return (await Promise.all(opened)).includes(path);
    } catch (error) {
      return unseen && hasCode(error, "EACCES");
    }
  }
  const openers = await lsof(file);
  return openers ? openers.some((opener) => opener.pid === pid) : unseen;
}

/** The processes with a file open, with their descriptors; undefined without lsof. */
async function lsof(file: string): Promise<{ pid: number; descriptor: string }[] | undefined> {
  // lsof exits with 1 when nothing has the file open, but this process has.
  const listed = await ask("lsof", "-F", "pf", "--", await realpath(file));
  if (listed === undefined) return undefined;
  let pid = 0;
  return listed.split("\n").flatMap((line) => {
    if (line.startsWith("p")) pid = Number(line.slice(1));
    return line.startsWith("f") ? [{ pid, descriptor: line.slice(1) }] : [];
  });
}

/** The other processes that have a file open as descriptor 3; none where that cannot be seen. */
export async function inheritorsOf(file: string): Promise<number[]> {
  if (!(await hasProc())) {
    const inheritors = ((await lsof(file)) ?? []).filter(({ descriptor }) => descriptor === "3");
    return inheritors.map(({ pid }) => pid).filter((pid) => pid !== process.pid);
  }
  const path = await realpath(file);
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0 && pid !== process.pid);
  const opened = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/fd/3`).catch(() => "")));
  return pids.filter((_, i) => opened[i] === path);
}

/** The process that listens on a TCP port, in words that also fit when /proc did not show it and lsof cannot either. */
export async function listenerByLsof(port: number): Promise<string> {
  const listed = await ask("lsof", "-nP", `-iTCP:${port}`, "-sTCP:LISTEN", "-F", "pc");
  const [, pid, command] = listed?.match(/^p(\d+)\nc(.*)$/m) ?? [];
  if (pid) return `the process ${command} (pid ${pid})`;
  const canSee = (await hasProc()) || which.sync("lsof", { nothrow: true });
  return canSee
    ? "a process that this user cannot see (try as root)"
    : "an unknown process (install lsof to see which)";
}

/** Is a process outside any container? A process in a container has a second pid there. Only a Linux host sees those. */
export async function isOfThisHost(pid: number): Promise<boolean> {
  if (!(await hasProc())) return exists(pid);
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return (status.match(/^NSpid:\s*(.*)$/m)?.[1]?.split(/\s+/) ?? []).length === 1;
}

/** The pid of a process's parent; 0 when there is none, the process has ended, or it cannot be seen. */
export async function parentOf(pid: number): Promise<number> {
  if (!(await hasProc())) return Number((await ask("ps", "-o", "ppid=", "-p", String(pid)))?.trim() ?? 0);
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(status.match(/^PPid:\s*(\d+)/m)?.[1] ?? 0);
}

/** Does a process hold a lock on the file with this inode? undefined where the kernel's list cannot be read. */
export async function isLocked(inode: number): Promise<boolean | undefined> {
  const locks = await readFile("/proc/locks", "utf8").catch(() => undefined);
  // The list has inodes without file systems, so another program's lock may have the same number.
  return locks === undefined ? undefined : new RegExp(`FLOCK .*:${inode} `).test(locks);
}
