import { execFileSync } from "node:child_process";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { which } from "zx/core";
import type { Mechanism } from "../lib/run/flock.ts";

/** The program itself: the shim of a version manager would need more than itself in PATH. */
const programOf = (command: string): string =>
  command === "python3"
    ? execFileSync(command, ["-c", "import sys; print(sys.executable)"], { encoding: "utf8" }).trim()
    : which.sync(command);

/** Leaves only these mechanisms of the lock in PATH, and other commands that the test needs. `path` is the whole PATH. */
export async function allow(
  folder: string,
  mechanisms: readonly Mechanism[],
  path: string,
  others: readonly string[] = [],
): Promise<void> {
  process.env.PATH = path;
  const commands = [...mechanisms.map(({ command }) => command), ...others];
  const programs = commands.map((command) => [command, programOf(command)] as const);
  const bin = join(folder, commands.join("-") || "none");
  await mkdir(bin);
  for (const [command, program] of programs) await symlink(program, join(bin, command));
  process.env.PATH = bin;
}
