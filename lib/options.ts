import { parseArgs } from "node:util";
import { UsageError } from "./errors.ts";

const KEEP = ["blue", "green", "abort"] as const;
/** The answer to "both are running", given before it is asked. */
export type Keep = (typeof KEEP)[number];

/** Is this text one of the answers? */
const isKeep = (text: string): text is Keep => KEEP.some((answer) => answer === text);

/** What the command line said. */
export interface Options {
  help: boolean;
  verbose: boolean;
  keep?: Keep;
}

/** Reads the command line; `withKeep` is whether the script knows `--keep`. Throws UsageError on anything it does not know. */
export function parseOptions(args: string[], withKeep: boolean): Options {
  const known = {
    help: { type: "boolean", short: "h", default: false },
    verbose: { type: "boolean", default: false },
    ...(withKeep ? { keep: { type: "string" } as const } : {}),
  } as const;
  try {
    const { help, verbose, keep } = parseArgs({ args, options: known }).values as {
      help: boolean;
      verbose: boolean;
      keep?: string;
    };
    if (keep === undefined) return { help, verbose };
    if (!isKeep(keep)) throw new Error(`--keep takes blue, green or abort, not ${JSON.stringify(keep)}`);
    return { help, verbose, keep };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), {
      next: "Run it with --help to see the options; nothing was changed.",
    });
  }
}
