#!/usr/bin/env -S npx tsx
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { $ } from "zx/core";
import { ROOT } from "../lib/settings.ts";
import { startLoad } from "./testbed/load.ts";
import { createScratch, waitFor } from "./testbed/scratch.ts";

// Records the terminal output of a real release, with its real durations, as docs/deploy.svg; and the screen of
// `status --watch` during its verification, under a light load, as docs/watch.svg.

const COMMAND = "npx tsx scripts/deploy-blue-green.mts";
const WATCH = "npx tsx scripts/status.mts --watch";

/** The seconds of the old color in the chart, and those of the new one. */
const [BEFORE_SECONDS, AFTER_SECONDS] = [25, 20];

/** About 90 requests per second. */
const LOAD = { clients: { post: 6, get: 6 }, thinkMs: 120, patientMs: [1000, 2000] } as const;

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

function picture(label: string, rows: readonly string[]): string {
  const [width, height] = [COLUMNS * SIZE * 0.602 + 2 * PADDING, rows.length * ROW + 2 * PADDING];
  const texts = rows.map(
    (row, i) => `<text x="${PADDING}" y="${PADDING + i * ROW + SIZE}" xml:space="preserve">${row}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.ceil(width)} ${height}" font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="${SIZE}" fill="#e6e9ef" role="img" aria-label="${label}, recorded on a terminal">
<rect width="100%" height="100%" rx="10" fill="#1c2430"/>
${texts.join("\n")}
</svg>
`;
}

/** The lines of the last full screen that is complete, without the empty ones at its end. */
const lastScreen = (output: string): string[] =>
  (output.split("\u001b[H").at(-2) ?? "")
    .replaceAll("\r", "")
    .split("\n")
    .map(painted)
    .join("\n")
    .trimEnd()
    .split("\n");

const prompt = (command: string): string => `<tspan fill="#8a93a3">$</tspan> ${command}`;

const stack = await createScratch("record");
const terminal = (env: Record<string, string>, command: string) =>
  $({
    quiet: true,
    cwd: ROOT,
    // Hides npx's own messages and progress bar.
    env: { ...env, TERM: "xterm", npm_config_loglevel: "error", npm_config_progress: "false" },
  })`script --quiet --return --command ${command} /dev/null`;
try {
  const first = await stack.deploy();
  if (first.exitCode !== 0) throw new Error(first.stdall);
  const context = await stack.apiVersion("2.0.0");
  const { HEALTH_RETRIES, HEALTH_INTERVAL, HEALTH_TIMEOUT, ...rest } = stack.env;
  const { API_IDLE_SECONDS, VERIFY_SECONDS, DRAIN_SECONDS, ...env } = rest; // the run is recorded with the defaults
  const watch = terminal(stack.env, `stty cols ${COLUMNS} rows 30; exec ${WATCH}`);
  let screens = "";
  watch.stdout.on("data", (chunk) => {
    screens += chunk;
  });
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, LOAD);
  await sleep(BEFORE_SECONDS * 1000);
  const release = terminal({ ...env, ...context }, COMMAND);
  const isTelling = async (): Promise<boolean> =>
    Number(
      lastScreen(screens)
        .join("\n")
        .match(/verify \w+ through nginx (\d+) s/)?.[1],
    ) >= AFTER_SECONDS;
  await waitFor("the screen during the verification", isTelling, 600);
  const screen = lastScreen(screens.replaceAll(stack.project, "loop"));
  watch.stdin.write("q");
  const recorded = await release;
  await Promise.all([watch, load.stop()]);
  const printed = lastlyShown(recorded.stdout.replaceAll(stack.project, "loop")).flatMap(wrapped);
  await writeFile(
    join(ROOT, "docs/deploy.svg"),
    picture("What a release prints", [prompt(COMMAND), ...printed]),
  );
  await writeFile(
    join(ROOT, "docs/watch.svg"),
    picture("The screen of status --watch during a release", [prompt(WATCH), "", ...screen]),
  );
} finally {
  await stack.remove();
}
