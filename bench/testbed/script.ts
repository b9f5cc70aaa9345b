import { join } from "node:path";
import { ROOT } from "../../lib/settings.ts";

/** A script of the tool, by the name of its file. */
export type Script = "deploy-blue-green" | "rollback" | "status" | "doctor" | "end-sessions" | "smoke-mcp";

/**
 * The command that runs a script, without arguments. `tests/run.mts` has bundled the scripts into the folder
 * LOOP_TEST_SCRIPTS: the same code, which starts in a sixth of the CPU time. Without it, tsx runs the sources.
 * With `--liftoff-only`, V8 does not optimize the WebAssembly of undici's parser, which takes 0.15 CPU-s.
 */
export function scriptCommand(name: Script): [command: string, ...args: string[]] {
  const bundles = process.env.LOOP_TEST_SCRIPTS;
  return bundles
    ? [process.execPath, "--liftoff-only", join(bundles, `${name}.mjs`)]
    : [
        process.execPath,
        "--import",
        join(ROOT, "node_modules/tsx/dist/loader.mjs"),
        join(ROOT, `scripts/${name}.mts`),
      ];
}
