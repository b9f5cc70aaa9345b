import { parseArgs } from "node:util";
import { UsageError } from "./errors.ts";

const KEEP = ["serving", "blue", "green", "abort"] as const;
/** The answer to "both are running", given before it is asked. `serving`: the one that nginx serves. */
export type Keep = (typeof KEEP)[number];

/** Is this text one of the answers? */
const isKeep = (text: string): text is Keep => KEEP.some((answer) => answer === text);

/** What the command line said. */
export interface Options {
  help: boolean;
  verbose: boolean;
  /** Nothing on stdout but one line when it is done. */
  quiet: boolean;
  /** Only look, and tell what would be done. */
  dryRun: boolean;
  /** Go on with a vault that is empty although it was used before. */
  acceptEmptyVault: boolean;
  keep?: Keep;
}

/** The same as parseArgs gives it. */
interface Given extends Omit<Options, "keep" | "dryRun" | "acceptEmptyVault"> {
  keep?: string;
  "dry-run": boolean;
  "accept-empty-vault": boolean;
}

/** Reads the command line; `withKeep` is whether the script knows `--keep`. Throws UsageError on anything it does not know. */
export function parseOptions(args: string[], withKeep: boolean): Options {
  const known = {
    help: { type: "boolean", short: "h", default: false },
    verbose: { type: "boolean", default: false },
    quiet: { type: "boolean", default: false },
    "dry-run": { type: "boolean", default: false },
    "accept-empty-vault": { type: "boolean", default: false },
    ...(withKeep ? { keep: { type: "string" } as const } : {}),
  } as const;
  try {
    const { values, tokens } = parseArgs({ args, options: known, tokens: true });
    const names = tokens.flatMap((token) => (token.kind === "option" ? [token.name] : []));
    const repeated = names.find((name, i) => names.indexOf(name) !== i);
    if (repeated) throw new Error(`--${repeated} is given twice`);
    const { keep, "dry-run": dryRun, "accept-empty-vault": acceptEmptyVault, ...flags } = values as Given;
    const rest = { ...flags, dryRun, acceptEmptyVault };
    if (rest.quiet && rest.verbose) throw new Error("--quiet and --verbose exclude each other");
    if (keep === undefined) return rest;
    if (!isKeep(keep)) throw new Error(`--keep takes ${KEEP.join(", ")}, not ${JSON.stringify(keep)}`);
    return { ...rest, keep };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const [, given = ""] = message.match(/'--([\w-]+)/) ?? [];
    const meant = Object.keys(known).find((name) => given.length > 1 && name.startsWith(given.slice(0, 2)));
    throw new UsageError(message, {
      next: `${meant && meant !== given ? `Did you mean --${meant}? ` : ""}Run it with --help to see the options; nothing was changed.`,
    });
  }
}
