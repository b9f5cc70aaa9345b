#!/usr/bin/env -S npx tsx
import { parseArgs } from "node:util";
import { examine } from "../lib/doctor/examine.ts";
import type { Finding } from "../lib/doctor/finding.ts";
import { describeFinding, describeTotal, reportOf } from "../lib/doctor/text.ts";
import { EXIT, ToolError, UsageError } from "../lib/errors.ts";
import { createLog } from "../lib/run/log.ts";
import { onSignals } from "../lib/run/signals.ts";
import { visibleJson } from "../lib/util/visible.ts";

const HELP = `Usage: npx tsx scripts/doctor.mts [options]

Checks whether this machine and these settings are ready for a release: settings, folders, engine, Compose, limits, memory,
disk, ports, nginx, cron, and the API's image. Then tries that image in a container of its own, with a read-only vault and
without a public port: its health, its idle timeout, and whether it keeps MCP sessions. Prints one line per check, with what
to do: ✓ fine, ! a release may fail, ✗ a release would fail. Touches no color, and removes what it created.

  --build     build the API's image for the trial, and remove it afterwards; its build cache stays.
              Without this option, the trial uses LOOP_API_IMAGE, else the newest image of a color with the
              port and health check of the settings. With neither, there is no trial
  --json      print JSON, for scripts; fields: docs/reference.md#doctor-json
  -h, --help  print this help

Exit codes: 0 no ✗ · 1 at least one ✗ · 2 wrong option · 129, 130, 143 interrupted by SIGHUP, SIGINT (Ctrl-C), SIGTERM`;

function parse(): { build: boolean; json: boolean; help: boolean } {
  const options = {
    build: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new UsageError((error as Error).message, { next: "Run it with --help to see the options." });
  }
}

// A closed pipe (`| head`) must not end this before the trial container is removed.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
const log = createLog();
try {
  const { build, json, help } = parse();
  if (help) console.log(HELP);
  else {
    const findings: Finding[] = [];
    const live = process.stdout.isTTY === true && !json;
    const tell = (finding: Finding): void => {
      findings.push(finding);
      if (!json) console.log(`${live ? "\r\x1b[K" : ""}${describeFinding(finding)}`);
    };
    const begin = (name: string): void => void (live && process.stdout.write(`… ${name}`));
    await examine({ environment: process.env, build, log, signal: onSignals(log), tell, begin });
    console.log(
      json ? visibleJson(JSON.stringify(reportOf(findings), undefined, 2)) : describeTotal(findings),
    );
    process.exitCode = findings.some(({ level }) => level === "problem") ? EXIT.failed : EXIT.done;
  }
} catch (error) {
  log.failure(error);
  process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
}
