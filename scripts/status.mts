#!/usr/bin/env -S npx tsx
import { parseArgs } from "node:util";
import { EXIT, ToolError, UsageError } from "../lib/errors.ts";
import { readStatus } from "../lib/release/status.ts";
import { describeStatus } from "../lib/release/status-text.ts";
import { showWatch } from "../lib/release/watch-screen.ts";
import { readOnlyContext } from "../lib/run/context.ts";
import { createLog } from "../lib/run/log.ts";
import { loadSettings } from "../lib/settings.ts";
import { visible, visibleJson } from "../lib/util/visible.ts";

const HELP = `Usage: npx tsx scripts/status.mts [--json | --watch]

Shows which color serves, as seen through nginx, and what runs. Changes nothing.

  --json      print JSON, for scripts; fields: docs/reference.md#status-json
  --watch     show the colors, the responses to clients, the sessions and the current step of a run, and
              refresh them every second until q or Ctrl-C; if stdout is not a terminal, print one line per second
  -h, --help  print this help

Exit codes: 0 one color serves and everything agrees · 1 something disagrees or is missing, or neither color
            serves · 2 wrong option or setting
            with --watch: 0 after q, Ctrl-C or a closed pipe · 129, 143 ended by SIGHUP, SIGTERM`;

function parse(): { json: boolean; watch: boolean; help: boolean } {
  const options = {
    json: { type: "boolean", default: false },
    watch: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    const { values } = parseArgs({ options });
    if (values.json && values.watch) throw new Error("--json and --watch exclude each other");
    return values;
  } catch (error) {
    throw new UsageError((error as Error).message, { next: "Run it with --help to see the options." });
  }
}

const log = createLog();
try {
  const { json, watch, help } = parse();
  if (help) console.log(HELP);
  else if (watch) {
    const settings = loadSettings(process.env, undefined, "nothing");
    settings.warnings.forEach(log.warn);
    process.exitCode = await showWatch(readOnlyContext(settings, log));
  } else {
    const settings = loadSettings(process.env, undefined, "nothing");
    settings.warnings.forEach(log.warn);
    const status = await readStatus(readOnlyContext(settings, log));
    console.log(json ? visibleJson(JSON.stringify(status, undefined, 2)) : visible(describeStatus(status)));
    process.exitCode = status.drift.length === 0 ? EXIT.done : EXIT.failed;
  }
} catch (error) {
  log.failure(error);
  process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
}
