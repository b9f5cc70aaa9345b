import { closeSync, openSync, readSync } from "node:fs";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { which } from "zx/core";
import type { Mechanism } from "../lib/run/flock.ts";

function isScript(path: string): boolean {
  const [file, start] = [openSync(path, "r"), Buffer.alloc(2)];
  readSync(file, start);
  closeSync(file);
  return start.toString() === "#!";
}

/** The first program of this name in PATH that is not a script: the shim of pyenv or asdf would need more than itself in PATH. */
function programOf(command: string): string {
  const program = which.sync(command, { all: true }).find((path) => !isScript(path));
  if (program === undefined) throw new Error(`each ${command} in PATH is a script`);
  return program;
}

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
