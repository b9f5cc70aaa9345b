#!/usr/bin/env -S npx tsx
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ROOT } from "../lib/settings.ts";
import { kills, type Report } from "./kills.ts";

const HELP = `Deploys and rolls back under load, and kills most of the runs at a random moment; writes docs/chaos.md.
The Docker daemon is restarted now and then only with --daemon, and only while nothing else runs on it.

Usage: npm run chaos -- [--runs N] [--seed S] [--daemon]

  --runs N   runs that something happens to (default 30); about eight seconds each
  --seed S   decides what happens and when (default 1)`;

const rows = (counts: Record<string, number>): string =>
  Object.entries(counts)
    .toSorted(([, a], [, b]) => b - a)
    .map(([name, times]) => `| ${name} | ${times} |`)
    .join("\n") || "| – | 0 |";

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

const text = (report: Report): string => `# Killed at random

${report.runs} runs under load, most of them killed at a random moment, often several in a row before one that nothing happens to.

| | |
| --- | ---: |
| requests | ${report.requests.toLocaleString("en")} |
| **failed while nginx was up** | **${sum(report.failed)}** |
| failed while nginx or the daemon was away on purpose (${report.outages} times) | ${report.lostInOutages.toLocaleString("en")} |
| plain runs in between, each of which has to put everything right | ${report.plainRuns} |
| **what needed a hand** | **${report.hands.length}** |
| **unverified builds kept**: after a plain run, the marked build was one that no run had verified in full | **${report.unverified.length}** |

| what happened | times |
| --- | ---: |
${rows(report.faults)}

| put right by a later run | times |
| --- | ---: |
${rows(report.repairs)}

| where a run was when it was ended | times |
| --- | ---: |
${rows(report.steps)}

Measured ${new Date().toISOString().slice(0, 10)} by \`npm run chaos -- --runs ${report.runs} --seed ${report.seed}${report.daemon ? " --daemon" : ""}\`.
${[...report.hands, ...report.unverified].map((hand) => `\n\`\`\`\n${hand}\n\`\`\``).join("\n")}`;

const { values } = parseArgs({
  options: {
    help: { type: "boolean", short: "h", default: false },
    runs: { type: "string", default: "30" },
    seed: { type: "string", default: "1" },
    daemon: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(HELP);
} else {
  const { daemon } = values;
  const report = await kills({
    runs: Number(values.runs),
    seed: Number(values.seed),
    daemon,
    say: console.log,
  });
  await writeFile(join(ROOT, "docs/chaos.md"), text(report));
  console.log(text(report));
  process.exitCode = report.hands.length + report.unverified.length + sum(report.failed) > 0 ? 1 : 0;
}
