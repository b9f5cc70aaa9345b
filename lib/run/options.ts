import { parseArgs } from "node:util";
import { UsageError } from "../errors.ts";

const KEEP = ["serving", "blue", "green", "abort"] as const;
/** The answer to "both are running", given in advance. `serving`: the color that nginx serves. */
export type Keep = (typeof KEEP)[number];

/** Is this text one of the answers? */
const isKeep = (text: string): text is Keep => KEEP.some((answer) => answer === text);

/** The options of the command line. */
export interface Options {
  help: boolean;
  verbose: boolean;
  /** One line on stdout, at the end. */
  quiet: boolean;
  /** Change nothing; print what would change. */
  dryRun: boolean;
  /** Continue although the vault is empty and was used before. */
  acceptEmptyVault: boolean;
  keep?: Keep;
}

/** The same, as parseArgs returns it. */
interface Given extends Omit<Options, "keep" | "dryRun" | "acceptEmptyVault"> {
  keep?: string;
  "dry-run": boolean;
  "accept-empty-vault": boolean;
}

/** Parses the command line; `withKeep` allows `--keep`. Throws UsageError for anything unknown. */
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
