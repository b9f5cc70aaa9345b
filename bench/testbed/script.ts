import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../lib/settings.ts";
import { V8_OPTIONS } from "./v8-options.ts";

/** A script of the tool, by the name of its file. */
export type Script = "deploy-blue-green" | "rollback" | "status" | "doctor" | "end-sessions" | "smoke-mcp";

type Command = [command: string, ...args: string[]];

const fromBundles = (folder: string, name: Script): Command => [
  process.execPath,
  ...V8_OPTIONS,
  join(folder, `${name}.mjs`),
];

const fromSources = (checkout: string, name: Script): Command => [
  process.execPath,
  "--import",
  join(ROOT, "node_modules/tsx/dist/loader.mjs"),
  join(checkout, `scripts/${name}.mts`),
];

/**
 * The command that runs a script, without arguments. `tests/run.mts` has bundled the scripts into the folder
 * LOOP_TEST_SCRIPTS, without the parts of libraries that no script uses: they start in a fifth of the CPU time.
 * Without it, tsx runs the sources.
 */
export function scriptCommand(name: Script): Command {
  const bundles = process.env.LOOP_TEST_SCRIPTS;
  return bundles ? fromBundles(bundles, name) : fromSources(ROOT, name);
}

/** Copies the bundles into a copy of this checkout. Returns `scriptCommand` for its scripts, which use that copy as theirs. */
export async function scriptsIn(checkout: string): Promise<(name: Script) => Command> {
  const bundles = process.env.LOOP_TEST_SCRIPTS;
  if (!bundles) return (name) => fromSources(checkout, name);
  const folder = join(checkout, "bundles");
  await cp(bundles, folder, { recursive: true });
  // They name the folder of their libraries, which another user cannot enter.
  for (const name of (await readdir(folder)).filter((file) => file.endsWith(".mjs"))) {
    const file = join(folder, name);
    await writeFile(file, (await readFile(file, "utf8")).replaceAll(bundles, folder));
  }
  return (name) => fromBundles(folder, name);
}
