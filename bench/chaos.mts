#!/usr/bin/env -S npx tsx
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ROOT } from "../lib/settings.ts";
import { kills, type Report } from "./kills.ts";

const HELP = `Runs deploys and rollbacks under load, kills most of them at a random moment, and writes docs/chaos.md.
With --daemon, some of them restart the Docker daemon, but only while no other containers run.

Usage: npm run chaos -- [--runs N] [--seed S] [--daemon]

  --runs N   runs with a fault (default 30); about eight seconds each
  --seed S   determines the faults and their moments (default 1)
  --daemon   restart the Docker daemon in some runs`;

const rows = (counts: Record<string, number>): string =>
  Object.entries(counts)
    .toSorted(([, a], [, b]) => b - a)
    .map(([name, times]) => `| ${name} | ${times} |`)
    .join("\n") || "| – | 0 |";

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

const text = (report: Report): string => `# Killed at random

${report.runs} random runs under load, and ${report.plainRuns} repair runs between them. Most were killed at a random moment, often several in a row before a repair run.

| | |
| --- | ---: |
| requests | ${report.requests.toLocaleString("en")} |
| **failed while nginx was up** | **${sum(report.failed)}** |
| failed while nginx or the Docker daemon was stopped on purpose (${report.outages} times) | ${report.lostInOutages.toLocaleString("en")} |
| repair runs: without a fault, each must repair everything | ${report.plainRuns} |
| **cases that needed a manual fix** | **${report.hands.length}** |
| **unverified builds kept**: after a repair run, the active build had never been fully verified | **${report.unverified.length}** |

| fault | times |
| --- | ---: |
${rows(report.faults)}

| found or repaired by a later run | times |
| --- | ---: |
${rows(report.repairs)}

| last completed step of a run that did not succeed | times |
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
