import { EXIT, ToolError } from "./errors.ts";
import { createLog, type Log } from "./log.ts";
import { type Options, parseOptions } from "./options.ts";
import { loadSettings, type Settings } from "./settings.ts";

/** What every function of the spec works on: one deployment's settings, and where the run speaks. */
export interface Stack {
  readonly settings: Settings;
  readonly options: Options;
  readonly log: Log;
}

interface Script {
  /** Printed for `--help`. */
  help: string;
  /** Whether it knows `--keep`. */
  keep: boolean;
  main(stack: Stack): Promise<void>;
}

/** Runs a script from command line to exit code: 0 when `main` ends, the error's own code when it throws. */
export async function runScript({ help, keep, main }: Script): Promise<void> {
  let log = createLog(false);
  try {
    const options = parseOptions(process.argv.slice(2), keep);
    if (options.help) {
      console.log(help);
      return;
    }
    log = createLog(options.verbose);
    await main({ settings: loadSettings(), options, log });
  } catch (error) {
    log.failure(error);
    process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
  }
}
