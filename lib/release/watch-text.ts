import { styleText } from "node:util";
import { COLORS, type Color } from "../color.ts";
import { cut } from "../util/columns.ts";
import { visible } from "../util/visible.ts";
import type { Minute, Second } from "./rates.ts";
import { sessionsOf } from "./status-report.ts";
import { describeRun, describeSessions } from "./status-text.ts";
import type { Seen } from "./watch.ts";

/** The rate is the mean of so many seconds: fewer would flicker. */
const RATE_SECONDS = 5;

const BARS = ["▂", "▃", "▄", "▅", "▆", "▇", "█"];

/** A second without responses, and one with a 5xx status. */
const [NONE, FAILED] = ["▁", "✗"];

/** One character per second, as high as its share of the most responses in a second; a space where nothing is known. */
export const sparkline = (minute: Minute, most: number): string =>
  minute
    .map((second) => {
      if (!second) return " ";
      if (second.errors > 0) return FAILED;
      const height = Math.floor((second.responses / most) * BARS.length);
      return second.responses === 0 ? NONE : BARS[Math.min(height, BARS.length - 1)];
    })
    .join("");

const known = (minute: Minute): Second[] => minute.filter((second) => second !== undefined);

/** Responses per second; a dash where nothing is known. */
function rate(minute: Minute): string {
  const seconds = known(minute.slice(-RATE_SECONDS));
  if (seconds.length === 0) return "-/s";
  const mean = seconds.reduce((sum, { responses }) => sum + responses, 0) / seconds.length;
  return `${mean === 0 || mean >= 10 ? Math.round(mean) : mean.toFixed(1)}/s`;
}

const errorsIn = (minute: Minute): number => known(minute).reduce((sum, { errors }) => sum + errors, 0);

const mostIn = (minutes: readonly Minute[]): number =>
  Math.max(1, ...minutes.flatMap((minute) => known(minute).map(({ responses }) => responses)));

const secondsSince = (ms: number, nowMs: number): string =>
  `${Math.max(0, Math.round((nowMs - ms) / 1000))} s`;

/** What a color is there for, and the state of its container unless it simply runs. */
function roleOf({ serving, kept, canary, run, containers }: Seen, color: Color): string {
  const state = containers[color];
  const runs = state === "running";
  const leaves = run?.from === color && (run.verified || run.verb === "end-sessions");
  const role =
    serving === color
      ? "serves"
      : runs && leaves
        ? "draining"
        : runs && kept === color
          ? "kept for its sessions"
          : runs && canary === color
            ? "canary"
            : runs && run?.to === color
              ? "new"
              : "";
  return [role, ...(runs && role ? [] : [state])].filter(Boolean).join(", ");
}

const title = ({ serving, project }: Seen): string =>
  `${serving ? `${serving} serves` : "nginx does not answer"} · ${project}`;

function runInWords({ run, nowMs }: Seen): string | undefined {
  if (!run) return undefined;
  const colors = run.to ? ` ${run.from ?? "?"} → ${run.to}` : "";
  return `${run.verb}${colors}, ${secondsSince(run.sinceMs, nowMs)}`;
}

const figures = (color: Color, minute: Minute): string =>
  `${color.padEnd(5)} ${rate(minute).padStart(7)} ${`5xx ${errorsIn(minute)}`.padEnd(8)}`;

/** A line of the screen. In a small window, only those with the lowest ranks are shown. */
interface Line {
  rank: number;
  text: string;
}

/** The lines of the screen, in their order. */
function linesOf(seen: Seen, columns: number): Line[] {
  const { run, nowMs, containers, sessions, problems, last, traffic } = seen;
  const most = mostIn(Object.values(traffic));
  const time = new Date(nowMs).toTimeString().slice(0, 8);
  const step = run?.step;
  const took = step ? ` ${secondsSince(step.sinceMs, nowMs)}` : "";
  return [
    { rank: 0, text: `${title(seen)} · ${time}` },
    ...problems.map((problem) => ({ rank: 1, text: `! ${problem}` })),
    { rank: 9, text: "" },
    ...COLORS.flatMap((color) => [
      { rank: 2, text: `${figures(color, traffic[color])} ${roleOf(seen, color)}` },
      { rank: 5, text: `  ${sparkline(traffic[color].slice(2 - columns), most)}` },
    ]),
    {
      rank: 8,
      text: `  responses per second, ${most} at most; 5xx in the last minute, ${FAILED} in the chart`,
    },
    { rank: 9, text: "" },
    ...(run ? [{ rank: 4, text: runInWords(seen) ?? "" }] : []),
    // The time stays readable, however long the name of the step is.
    ...(step ? [{ rank: 3, text: `… ${cut(escaped(step.name), columns - took.length - 2)}${took}` }] : []),
    ...(run ? [] : [{ rank: 7, text: last ? `last run: ${describeRun(last)}` : "no earlier runs" }]),
    ...(sessions ? [{ rank: 6, text: describeSessions(sessionsOf(sessions), nowMs) }] : []),
    { rank: 7, text: `nginx ${containers.nginx} · auth ${containers.auth}` },
    { rank: 10, text: "q or Ctrl-C: leave" },
  ];
}

/** A text of others in one line: it can neither control the terminal nor begin a line. */
const escaped = (text: string): string => visible(text.replace(/\s+/g, " "));

/**
 * The screen: so many lines, each cut to the columns. Where there are too few rows, the most important lines are shown: what
 * serves, what is wrong, the figures, the step.
 */
export function screenOf(seen: Seen, { columns, rows }: { columns: number; rows: number }): string[] {
  const lines = linesOf(seen, columns);
  const shown = lines.toSorted((a, b) => a.rank - b.rank).slice(0, rows);
  return lines
    .filter((line) => shown.includes(line))
    .map(({ text }) => cut(visible(text.replace(/[\n\t]/g, " ")), columns));
}

/** The same in one line, which begins with the time in UTC: for a pipe or a file. */
export function lineOf(seen: Seen): string {
  const { run, nowMs, problems, traffic } = seen;
  const step = run?.step ? `: ${run.step.name} ${secondsSince(run.step.sinceMs, nowMs)}` : "";
  const parts = [
    title(seen),
    ...COLORS.map((color) => `${figures(color, traffic[color]).replace(/ +/g, " ")}${roleOf(seen, color)}`),
    ...(run ? [`${runInWords(seen)}${step}`] : []),
    ...problems.map((problem) => `! ${problem}`),
  ];
  return `${new Date(nowMs).toISOString()} ${parts.map(escaped).join(" · ")}`;
}

const styled =
  (style: "red" | "green" | "yellow") =>
  (text: string): string =>
    styleText(style, text, { validateStream: false });

/** A line of the screen in color: what fails, and what is wrong. */
export const painted = (line: string): string =>
  line
    .replace(/^! .*/, styled("yellow"))
    .replace(/\b5xx [1-9]\d*|✗+/g, styled("red"))
    .replace(/^(blue|green) serves\b/, styled("green"));
