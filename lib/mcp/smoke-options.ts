import { parseArgs } from "node:util";
import { UsageError } from "../errors.ts";
import { someSeconds } from "../util/formats.ts";
import type { Access } from "./client.ts";

/** What a smoke test was asked to do. */
export interface SmokeOptions extends Access {
  /** The endpoint of the new color. */
  endpoint: URL;
  /** The endpoint of the serving color, to compare with. */
  previous?: URL;
  /** The file with the calls. */
  calls?: string;
  /** Removed tools and arguments, and newly required ones, are no failure. */
  allowRemoved: boolean;
}

const DEFAULTS = { path: "/mcp", seconds: "20" } as const;
/** RFC 6750. Anything else would be rejected by fetch, with a message that contains the token. */
const A_TOKEN = /^[\w.~+/-]+=*$/;

const next = "Run it with --help to see the options.";
const wrong = (source: string, must: string): UsageError => new UsageError(`${source} ${must}`, { next });

/** Throws UsageError. The address is not quoted: it may contain a password. */
function endpointAt(base: string, path: string, source: string): URL {
  const url = URL.canParse(base) ? new URL(base) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash)
    throw wrong(source, "must be an address such as http://127.0.0.1:8085");
  url.pathname = `${url.pathname.replace(/\/+$/, "")}${path}`;
  return url;
}

/**
 * Parses the command line and the environment of a smoke test; an option overrides its variable. Returns "help" for `--help`.
 * Throws UsageError for anything unknown or wrong.
 */
export function parseSmokeOptions(args: string[], env: NodeJS.ProcessEnv): SmokeOptions | "help" {
  const options = {
    url: { type: "string" },
    "previous-url": { type: "string" },
    path: { type: "string", default: DEFAULTS.path },
    calls: { type: "string" },
    "allow-removed": { type: "boolean", default: false },
    seconds: { type: "string", default: DEFAULTS.seconds },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  const { values } = (() => {
    try {
      return parseArgs({ args, options });
    } catch (error) {
      throw new UsageError((error as Error).message, { next });
    }
  })();
  if (values.help) return "help";
  const { path, calls } = values;
  if (!/^\/[^\s?#]*$/.test(path))
    throw wrong("--path", `must be a path such as /mcp, not ${JSON.stringify(path)}`);
  const seconds = someSeconds.safeParse(values.seconds);
  if (!seconds.success) throw wrong("--seconds", `${seconds.error.issues[0]?.message}`);

  const url = values.url ?? env.LOOP_URL;
  if (!url) throw new UsageError("Neither --url nor LOOP_URL says which server to test", { next });
  const previous = values["previous-url"] ?? env.LOOP_PREVIOUS_URL;
  const token = env.LOOP_TOKEN;
  if (token && !A_TOKEN.test(token))
    throw new UsageError("LOOP_TOKEN is not a bearer token", {
      next: "It may have letters, digits and -._~+/ only, and = at its end. Look for a space or a newline.",
    });
  return {
    endpoint: endpointAt(url, path, values.url === undefined ? "LOOP_URL" : "--url"),
    ...(previous
      ? {
          previous: endpointAt(
            previous,
            path,
            values["previous-url"] === undefined ? "LOOP_PREVIOUS_URL" : "--previous-url",
          ),
        }
      : {}),
    ...(calls === undefined ? {} : { calls }),
    ...(token ? { token } : {}),
    allowRemoved: values["allow-removed"],
    seconds: seconds.data,
  };
}
