#!/usr/bin/env -S npx tsx
import { parseArgs } from "node:util";
import { EXIT, ToolError, UsageError } from "../lib/errors.ts";
import { createLog } from "../lib/log.ts";
import { loadSettings } from "../lib/settings.ts";
import { lookingAt } from "../lib/stack.ts";
import { describeStatus, readStatus } from "../lib/status.ts";
import { visible, visibleJson } from "../lib/visible.ts";

const HELP = `Shows what runs and which color serves, asked through nginx; changes nothing.

Usage: npx tsx scripts/status.mts [--json]

  --json      the same as JSON, for scripts: see Status in lib/status.ts
  -h, --help  show this

Exit codes: 0 one color serves and all agree · 1 something disagrees, is away, or nothing serves · 2 wrong option or setting`;

function parse(): { json: boolean; help: boolean } {
  const options = {
    json: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new UsageError((error as Error).message, { next: "Run it with --help to see the options." });
  }
}

const log = createLog();
try {
  const { json, help } = parse();
  if (help) console.log(HELP);
  else {
    const settings = loadSettings(process.env, undefined, "nothing");
    settings.warnings.forEach(log.warn);
    const status = await readStatus(lookingAt(settings, log));
    console.log(json ? visibleJson(JSON.stringify(status, undefined, 2)) : visible(describeStatus(status)));
    process.exitCode = status.drift.length === 0 ? EXIT.done : EXIT.failed;
  }
} catch (error) {
  log.failure(error);
  process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
}
