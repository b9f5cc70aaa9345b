import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { ROOT, type Settings } from "../settings.ts";
import { SECRET } from "../settings-schema.ts";
import type { Context } from "./context.ts";

/**
 * Runs its arguments as a command, beside a watchdog that kills the whole process group, itself included, as soon as
 * descriptor 4 ends. Only the run holds the other end, so this also happens when the run is killed with SIGKILL.
 * - The watchdog alone inherits the lock, as descriptor 3: the next run starts when the group is dead, and what has left the
 *   group cannot block it.
 * - It ignores signals from its start, because a command may end its own group with `kill 0`.
 * - It is not the command's child, because a program that waits for all its children would wait for it.
 */
const GUARDED = `exec 2>&1
trap "" HUP INT TERM
( { read -r line <&4; kill -s KILL 0; } >/dev/null 2>&1 & )
trap - HUP INT TERM
exec "$@" 3<&- 4<&-`;

/** The lines that are shown, and those at the end that an error has: an endless loop must not fill the disk with its output. */
const [SHOWN_LINES, LAST_LINES] = [1000, 20];

/** A longer line is shown in parts. */
const LONGEST_LINE = 4000;

/** Milliseconds for the rest of the output. A process that has left the group may keep the pipe open for days. */
const REST_MS = 500;

/** How an owner's command ended. */
export interface Ended {
  /** How it failed, in words; undefined when it exited with 0. */
  failure: string | undefined;
  /** The last lines of its output. */
  output: string;
}

/** How a command failed and the last lines of its output, for an error. */
export const failureDetails = ({ failure, output }: Ended): string =>
  output ? `${failure}; the last lines of its output:\n${output}` : `${failure}`;

/**
 * Runs a command of the owner (the smoke test or a hook) in the checkout, for `seconds` at most. It gets the environment of the
 * run without secrets, and `variables`. Its output is shown while it runs, and logged. When it has ended, at the deadline, on a
 * signal, and when the run is killed, its process group is killed. Throws InterruptedError.
 */
export async function runOwnerCommand(
  context: Context,
  command: readonly string[],
  seconds: number,
  variables: Readonly<Record<string, string>>,
): Promise<Ended> {
  const { settings, log, lock, signal } = context;
  const last: string[] = [];
  let lines = 0;
  const tell = (line: string): void => {
    if (last.push(line) > LAST_LINES) last.shift();
    if (++lines <= SHOWN_LINES) log.info(`  ${line}`);
    else if (lines === SHOWN_LINES + 1) log.info(`  … the rest is not shown`);
  };
  const ended = (failure: string | undefined): Ended => ({ failure, output: last.join("\n") });

  let child: ChildProcess;
  try {
    child = spawn("/bin/sh", ["-c", GUARDED, "sh", ...command], {
      cwd: ROOT,
      env: { ...withoutSecrets(settings), ...variables },
      detached: true, // a process group of its own
      stdio: ["ignore", "pipe", "ignore", lock.descriptor ?? "ignore", "pipe"],
    });
  } catch (error) {
    return ended(String(error)); // for example too long an environment
  }
  readLines(child, tell);
  const kill = (): void => {
    try {
      if (child.pid) process.kill(-child.pid, "SIGKILL");
    } catch {
      // Nothing of the group is left.
    }
  };
  let late = false;
  const expire = (): void => {
    late = true;
    kill();
  };
  const timer = setTimeout(expire, seconds * 1000);
  let rest: NodeJS.Timeout | undefined;
  child.once("exit", () => {
    kill(); // what it left in the background
    rest = setTimeout(() => child.stdout?.destroy(), REST_MS);
  });
  signal.addEventListener("abort", kill);
  if (signal.aborted) kill();
  try {
    const [code, by] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
    signal.throwIfAborted();
    if (code === 0) return ended(undefined);
    return ended(late ? `not done within ${seconds} s` : by ? `killed by ${by}` : `exit code ${code}`);
  } catch (error) {
    signal.throwIfAborted();
    return ended(String(error)); // it could not be started
  } finally {
    clearTimeout(timer);
    clearTimeout(rest);
    signal.removeEventListener("abort", kill);
  }
}

/** The environment of the run without secrets: the output of a command that prints it is logged. */
const withoutSecrets = ({ environment }: Settings): Record<string, string> =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => !SECRET.includes(name)));

/** Passes on each line of a command's output. */
function readLines({ stdout }: ChildProcess, tell: (line: string) => void): void {
  let rest = "";
  stdout?.setEncoding("utf8");
  const tellParts = (line: string): void => {
    for (let from = 0; from === 0 || from < line.length; from += LONGEST_LINE)
      tell(line.slice(from, from + LONGEST_LINE));
  };
  stdout?.on("data", (chunk: string) => {
    const lines = (rest + chunk).split(/\r\n|[\r\n]/);
    rest = lines.pop() ?? "";
    lines.forEach(tellParts);
    if (rest.length <= LONGEST_LINE) return;
    tellParts(rest);
    rest = "";
  });
  stdout?.on("close", () => {
    if (rest) tell(rest);
  });
}
