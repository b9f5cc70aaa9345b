import { type Figures, figuresOf, type Outcome, type OwnTimes, type Switch } from "./figures.ts";
import type { Method, Rate, Saturation, Way } from "./saturation.ts";
import type { Shot } from "./testbed/load.ts";

const whole = (value: number): string => Math.round(value).toLocaleString("en");
const inSeconds = (ms: number): string => (ms / 1000).toFixed(2);
const kinds = (failures: Record<string, number>): string =>
  Object.entries(failures)
    .toSorted(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${whole(count)} ${kind}`)
    .join(", ");

const ROWS: [string, (figures: Figures, outcome: Outcome) => string][] = [
  ["switches", (_, { switches }) => whole(switches.length)],
  ["requests", ({ requests }) => whole(requests)],
  ["**failed**", ({ failed }) => `**${whole(failed)}**`],
  ["failed per switch", ({ failedPerSwitch }) => failedPerSwitch.toFixed(1)],
  ["failures by kind", ({ failures }) => kinds(failures) || "–"],
  [
    "longest gap without a response, ms (during switches / otherwise)",
    ({ longestGap }) => longestGap.map(whole).join(" / "),
  ],
  [
    "p50 / p99 before the first switch, ms",
    ({ p50Steady, p99Steady }) => `${whole(p50Steady)} / ${whole(p99Steady)}`,
  ],
  [
    "p50 / p99 during switches, ms",
    ({ p50Switch, p99Switch }) => `${whole(p50Switch)} / ${whole(p99Switch)}`,
  ],
  ["p99 during switches ÷ p99 before", ({ p99Switch, p99Steady }) => (p99Switch / p99Steady).toFixed(2)],
  [
    "switch command to first response from the new build, ms (median / worst)",
    ({ firstAnswer }) => firstAnswer.map(whole).join(" / "),
  ],
  [
    "step `switch nginx` in the slowest switch, ms",
    (_, { switches }) => {
      const [slowest] = switches.toSorted((a, b) => b.firstAnswer - b.command - (a.firstAnswer - a.command));
      return slowest?.step === undefined ? "–" : whole(slowest.step);
    },
  ],
];

/** The contenders side by side, as a Markdown table. */
export function table(outcomes: readonly Outcome[]): string {
  const figures = outcomes.map(figuresOf);
  const line = (cells: string[]): string => `| ${cells.join(" | ")} |`;
  return [
    line(["", ...outcomes.map(({ name }) => name)]),
    line(["---", ...outcomes.map(() => "---:")]),
    ...ROWS.map(([label, cell]) =>
      line([label, ...outcomes.map((outcome, i) => cell(figures[i] as Figures, outcome))]),
    ),
  ].join("\n");
}

/** This tool's own times, as a Markdown table. */
export const ownTable = ({ switch: first, deploy, rollback, warmRollback }: OwnTimes): string =>
  [
    "| without load, median | s |",
    "| --- | ---: |",
    `| switch: from the link change to the first response from the new color, on new connections | ${inSeconds(first)} |`,
    `| deploy, without build, container start, API boot and \`VERIFY_SECONDS\` | ${inSeconds(deploy)} |`,
    `| rollback to a stopped color: from Enter to its first response, without API boot | ${inSeconds(rollback)} |`,
    `| **rollback to a paused color: from Enter to its first response, everything included** | **${inSeconds(warmRollback)}** |`,
  ].join("\n");

/** What this tool's own times are made of, as a Markdown table. */
export const partsTable = ({ parts }: OwnTimes): string =>
  ["| without load, median | ms |", "| --- | ---: |"]
    .concat(Object.entries(parts).map(([name, ms]) => `| ${name} | ${whole(ms)} |`))
    .join("\n");

/** All ways to one API, as a Markdown table. Ratios are to the API itself, in the same run. */
export function saturationTable({ ways }: Saturation): string {
  const perSecond = ({ requests, seconds }: Rate): number => requests / seconds;
  const direct = (ways[0] as Way).rates;
  const cells = ({ rates }: Way, method: Method): string => {
    const [rate, share] = [perSecond(rates[method]), perSecond(rates[method]) / perSecond(direct[method])];
    return `${whole(rate)} | ${share.toFixed(2)} | ${rates[method].p50.toFixed(1)} / ${rates[method].p99.toFixed(1)}`;
  };
  const failed = ({ rates: { get, post } }: Way): string => {
    const lost = get.failed + post.failed;
    return `${lost > 0 ? `**${whole(lost)}**` : "0"} of ${whole(get.requests + post.requests)}`;
  };
  return [
    "| | GET req/s | vs. no proxy | p50 / p99 ms | POST req/s | vs. no proxy | p50 / p99 ms | failed |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...ways.map((way) => `| ${way.name} | ${cells(way, "get")} | ${cells(way, "post")} | ${failed(way)} |`),
  ].join("\n");
}

const WIDTH = 920;
const STRIP = 180;
const LEFT = 50;
const PLOT = WIDTH - LEFT - 20;
const BIN_MS = 100;
const [BEFORE_MS, SHOWN_MS] = [2000, 12_000];

/** A pause between switches that leaves one of them in a picture. */
export const PAUSE_MS = 10_000;

/** The switch that lost most, so that the picture hides nothing; of those, the one with the median time to its first answer. */
function worst({ shots, switches }: Outcome): Switch {
  const lost = ({ command }: Switch): number =>
    shots.filter(
      ({ failure, at }) => failure && at > command - BEFORE_MS && at < command + SHOWN_MS - BEFORE_MS,
    ).length;
  const losses = switches.map(lost);
  const candidates = switches.filter((_, i) => losses[i] === Math.max(...losses));
  const byTime = candidates.toSorted((a, b) => a.firstAnswer - a.command - (b.firstAnswer - b.command));
  return byTime[Math.floor((byTime.length - 1) / 2)] as Switch;
}

const FILLS = { blue: "#3b74d8", green: "#2f9e4f", failed: "#d6293e" } as const;
type Layer = keyof typeof FILLS;
type Bin = Record<Layer, number>;

function bins(shots: readonly Shot[], from: number): Bin[] {
  const all = Array.from({ length: SHOWN_MS / BIN_MS }, (): Bin => ({ blue: 0, green: 0, failed: 0 }));
  for (const { at, ms, color, failure } of shots) {
    const bin = all[Math.floor((at + ms - from) / BIN_MS)];
    if (bin) bin[failure ? "failed" : color === "blue" ? "blue" : "green"]++;
  }
  return all;
}

/** The bins of one panel, from 2 s before the command. */
const columnsOf = (outcome: Outcome): Bin[] => bins(outcome.shots, worst(outcome).command - BEFORE_MS);

function strip(outcome: Outcome, top: number, highest: number): string {
  const { command, firstAnswer, stop } = worst(outcome);
  const from = command - BEFORE_MS;
  const columns = columnsOf(outcome);
  const x = (ms: number): number => LEFT + (ms / SHOWN_MS) * PLOT;
  const width = (x(BIN_MS) - x(0) - 0.8).toFixed(1);
  const base = top + STRIP - 30;
  const height = STRIP - 87;
  const bars = columns.flatMap((bin, i) => {
    let y = base;
    return (["blue", "green", "failed"] as const).map((layer) => {
      const tall = (bin[layer] / highest) * height;
      y -= tall;
      const place = `x="${x(i * BIN_MS).toFixed(1)}" y="${y.toFixed(1)}" width="${width}" height="${tall.toFixed(1)}"`;
      return tall > 0 ? `<rect ${place} fill="${FILLS[layer]}"/>` : "";
    });
  });
  // Two marks may be close: each has a line of its own to stand on.
  const mark = (ms: number, text: string, line: number): string => {
    const top = base - height - 10 - line * 12;
    return ms < 0 || ms > SHOWN_MS
      ? ""
      : `<path d="M${x(ms).toFixed(1)} ${base + 4}V${top}" stroke="#1c2430" stroke-dasharray="3 3"/><text x="${(x(ms) + 4).toFixed(1)}" y="${top + 6}">${text}</text>`;
  };
  const seconds = Array.from({ length: SHOWN_MS / 2000 + 1 }, (_, i) => i * 2000).map(
    (ms) =>
      `<text class="dim" x="${x(ms)}" y="${base + 16}" text-anchor="middle">${(ms - BEFORE_MS) / 1000} s</text>`,
  );
  return `<text class="name" x="${LEFT}" y="${top + 8}">${outcome.name}</text>
<text class="dim" x="${LEFT - 6}" y="${base - height + 6}" text-anchor="end">${highest}</text>
<path d="M${LEFT} ${base}H${LEFT + PLOT}" stroke="#8a93a3"/>
${bars.filter(Boolean).join("")}
${mark(BEFORE_MS, "switch command", 2)}${mark(firstAnswer - from, "first response from the new build", 1)}${stop > firstAnswer ? mark(stop - from, "stop of the old container", 0) : ""}${seconds.join("")}`;
}

/** Answers per 100 ms by color around each contender's worst switch, failures in red, as an SVG. */
export function picture(outcomes: readonly Outcome[]): string {
  const height = outcomes.length * STRIP + 20;
  const counts = outcomes.flatMap(columnsOf).map(({ blue, green, failed }) => blue + green + failed);
  const highest = Math.max(1, ...counts); // one scale for all
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="11" role="img" aria-label="Responses per 100 ms around a switch, by color; failures in red">
<style>text { fill: #1c2430 } .name { font-weight: 600; font-size: 13px } .dim { fill: #6b7484 }</style>
<rect width="${WIDTH}" height="${height}" rx="10" fill="#fafbfc"/>
${outcomes.map((outcome, i) => strip(outcome, 20 + i * STRIP, highest)).join("\n")}
</svg>
`;
}
