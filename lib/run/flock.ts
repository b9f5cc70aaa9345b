import { setTimeout as sleep } from "node:timers/promises";
import { which } from "zx/core";
import { run } from "./command.ts";

/** The inherited descriptor; see `keepOpen` in `run`. */
const DESCRIPTOR = "3";

/** 2 | 4 is LOCK_EX | LOCK_NB everywhere; EWOULDBLOCK is 11 on Linux and 35 on macOS and the BSDs. */
const PERL = `open(my $f, "+<&=", ${DESCRIPTOR}) or die $!;
exit 0 if flock($f, 2 | 4);
exit 75 if $! + 0 == 11 || $! + 0 == 35;
die $!;`;

const PYTHON = `import fcntl, sys
try:
    fcntl.flock(${DESCRIPTOR}, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(75)`;

/** A program that takes the kernel's lock on an inherited descriptor, and its exit code when another process holds it. */
export interface Mechanism {
  command: string;
  args: readonly string[];
  held: number;
}

/**
 * All take the same lock, so runs that use different ones exclude each other. `flock` comes first, because it starts fastest
 * and Linux and BusyBox have it (without `-w` there, hence the polling). macOS has perl, and no flock. python3 is the last resort; with `-I` it imports
 * nothing from the working directory.
 */
export const MECHANISMS: readonly Mechanism[] = [
  { command: "flock", args: ["-n", DESCRIPTOR], held: 1 },
  { command: "perl", args: ["-e", PERL], held: 75 },
  { command: "python3", args: ["-I", "-c", PYTHON], held: 75 },
];

/** The seconds that one attempt may take, and between two attempts. */
const [TRY_SECONDS, PAUSE_SECONDS] = [10, 0.5];

/**
 * Takes the lock on an open file, for this process and all that inherit the descriptor; false when another process holds it.
 * Throws an Error that says what is missing when no mechanism works.
 */
export async function tryLock(descriptor: number): Promise<boolean> {
  const failures: string[] = [];
  for (const { command, args, held } of MECHANISMS) {
    if (!which.sync(command, { nothrow: true })) continue;
    const { exitCode, stderr } = await run(command, [...args], {
      deadline: TRY_SECONDS,
      keepOpen: descriptor,
    });
    if (exitCode === 0) return true;
    if (exitCode === held) return false;
    failures.push(`${command}: ${stderr.trim() || `exit code ${exitCode}`}`);
  }
  if (failures.length > 0) throw new Error(failures.join("\n"));
  throw new Error(
    `none of ${MECHANISMS.map(({ command }) => command).join(", ")} is in PATH: install one of them`,
  );
}

/** Tries for `seconds`; returns whether it got the lock. Throws as `tryLock`. */
export async function waitForLock(descriptor: number, seconds: number): Promise<boolean> {
  for (const deadline = performance.now() + seconds * 1000; ; await sleep(PAUSE_SECONDS * 1000)) {
    if (await tryLock(descriptor)) return true;
    if (performance.now() >= deadline) return false;
  }
}
