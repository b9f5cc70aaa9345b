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
  /** The image to release, instead of LOOP_API_IMAGE. */
  image?: string;
  /** Release nothing if the serving color has the new image already. */
  ifChanged?: boolean;
  /** The number of the release to go back to. */
  to?: number;
  /** Only print the releases that a rollback can go back to. */
  list?: boolean;
}

const flag = { type: "boolean", default: false } as const;
const text = { type: "string" } as const;

const COMMON = {
  help: { ...flag, short: "h" },
  verbose: flag,
  quiet: flag,
  "dry-run": flag,
  "accept-empty-vault": flag,
} as const;

/** The options of each script, besides those of both. */
const OWN = {
  deploy: { keep: text, image: text, "if-changed": flag },
  rollback: { to: text, list: flag },
} as const;

/** Every option, as parseArgs returns it. */
interface Given {
  help: boolean;
  verbose: boolean;
  quiet: boolean;
  "dry-run": boolean;
  "accept-empty-vault": boolean;
  keep?: string;
  image?: string;
  "if-changed"?: boolean;
  to?: string;
  list?: boolean;
}

/** Parses the command line of a script. Throws UsageError for anything unknown. */
export function parseOptions(args: string[], script: keyof typeof OWN): Options {
  const known = { ...COMMON, ...OWN[script] };
  try {
    const { values, tokens } = parseArgs({ args, options: known, tokens: true });
    const names = tokens.flatMap((token) => (token.kind === "option" ? [token.name] : []));
    const repeated = names.find((name, i) => names.indexOf(name) !== i);
    if (repeated) throw new Error(`--${repeated} is given twice`);
    return optionsFrom(values as Given);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const [, given = ""] = message.match(/'--([\w-]+)/) ?? [];
    const meant = Object.keys(known).find((name) => given.length > 1 && name.startsWith(given.slice(0, 2)));
    throw new UsageError(message, {
      next: `${meant && meant !== given ? `Did you mean --${meant}? ` : ""}Run it with --help to see the options; nothing was changed.`,
    });
  }
}

function optionsFrom(given: Given): Options {
  const { help, verbose, quiet, keep, image, to, list } = given;
  if (quiet && verbose) throw new Error("--quiet and --verbose exclude each other");
  if (keep !== undefined && !isKeep(keep))
    throw new Error(`--keep takes ${KEEP.join(", ")}, not ${JSON.stringify(keep)}`);
  if (to !== undefined && !/^[1-9]\d{0,8}$/.test(to))
    throw new Error(`--to takes the number of a release, as --list shows it, not ${JSON.stringify(to)}`);
  if (list && to !== undefined) throw new Error("--list and --to exclude each other");
  return {
    ...{ help, verbose, quiet, dryRun: given["dry-run"], acceptEmptyVault: given["accept-empty-vault"] },
    ...(keep === undefined ? {} : { keep }),
    ...(image === undefined ? {} : { image }),
    ...(given["if-changed"] ? { ifChanged: true } : {}),
    ...(to === undefined ? {} : { to: Number(to) }),
    ...(list ? { list } : {}),
  };
}
