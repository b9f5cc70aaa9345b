#!/usr/bin/env -S npx tsx
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { $ } from "zx/core";
import { ROOT } from "../lib/settings.ts";
import { createScratch } from "./testbed/scratch.ts";

// Records the terminal output of a real release, with its real durations, as docs/deploy.svg.

const COMMAND = "npx tsx scripts/deploy-blue-green.mts";
const [SIZE, ROW, PADDING, COLUMNS] = [13, 20, 18, 110];
const FILLS: Readonly<Record<string, string>> = { "31": "#ff7b86", "32": "#57d27c", "33": "#ffc857" };

/** The lines that remain on the terminal, without live lines that were overwritten. */
const lastlyShown = (output: string): string[] =>
  output
    .replaceAll("\r\n", "\n")
    .split("\n")
    .map((line) => line.split("\r\u001b[K").at(-1) ?? "")
    .filter((line) => stripVTControlCharacters(line).trim());

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Converts the terminal's color codes to SVG and removes all other control codes. */
const painted = (line: string): string =>
  stripVTControlCharacters(
    escaped(line).replace(
      // biome-ignore lint/suspicious/noControlCharactersInRegex: this matches terminal color codes
      /\u001b\[(3[123])m(.*?)\u001b\[39m/g,
      (_, code: string, text: string) => `<tspan fill="${FILLS[code]}">${text}</tspan>`,
    ),
  );

/** Wraps lines that are too long for the picture, as a terminal does. */
const wrapped = (line: string): string[] =>
  stripVTControlCharacters(line).length <= COLUMNS
    ? [painted(line)]
    : (line.match(new RegExp(`.{1,${COLUMNS}}(?: |$)`, "g")) ?? []).map(painted);

function picture(lines: readonly string[]): string {
  const rows = [`<tspan fill="#8a93a3">$</tspan> ${COMMAND}`, ...lines.flatMap(wrapped)];
  const [width, height] = [COLUMNS * SIZE * 0.602 + 2 * PADDING, rows.length * ROW + 2 * PADDING];
  const texts = rows.map(
    (row, i) => `<text x="${PADDING}" y="${PADDING + i * ROW + SIZE}" xml:space="preserve">${row}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.ceil(width)} ${height}" font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="${SIZE}" fill="#e6e9ef" role="img" aria-label="What a release prints, recorded on a terminal">
<rect width="100%" height="100%" rx="10" fill="#1c2430"/>
${texts.join("\n")}
</svg>
`;
}

const stack = await createScratch("record");
try {
  const first = await stack.deploy();
  if (first.exitCode !== 0) throw new Error(first.stdall);
  const context = await stack.apiVersion("2.0.0");
  const { HEALTH_RETRIES, HEALTH_INTERVAL, HEALTH_TIMEOUT, ...rest } = stack.env;
  const { API_IDLE_SECONDS, VERIFY_SECONDS, DRAIN_SECONDS, ...env } = rest; // the run is recorded with the defaults
  const recorded = await $({
    quiet: true,
    cwd: ROOT,
    // Hides npx's own messages and progress bar.
    env: { ...env, ...context, TERM: "xterm", npm_config_loglevel: "error", npm_config_progress: "false" },
  })`script --quiet --return --command ${COMMAND} /dev/null`;
  await writeFile(
    join(ROOT, "docs/deploy.svg"),
    picture(lastlyShown(recorded.stdout.replaceAll(stack.project, "loop"))),
  );
} finally {
  await stack.remove();
}
