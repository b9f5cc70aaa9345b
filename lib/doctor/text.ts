import { visible } from "../util/visible.ts";
import type { Finding, Level } from "./finding.ts";

const SIGNS: Readonly<Record<Level, string>> = { ok: "✓", warning: "!", problem: "✗" };

/** The width of the column of names. */
const NAMES = 14;

/** Several lines as one. Each but the last ends with a punctuation mark, so that they do not run into each other. */
const joined = (text: string): string =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean)
    .map((line, i, lines) => (i === lines.length - 1 || /[.:;,]$/.test(line) ? line : `${line};`))
    .join(" ");

/** A finding as one line, escaped: what was seen, and what to do. */
export function describeFinding({ check, level, finding, next }: Finding): string {
  const seen = joined(finding).replace(/\.$/, "");
  const words = next === undefined ? seen : `${seen}${seen.endsWith("?") ? "" : "."} ${joined(next)}`;
  return visible(`${SIGNS[level]} ${check.padEnd(NAMES)} ${words}`);
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

const having = (findings: readonly Finding[], level: Level): number =>
  findings.filter((finding) => finding.level === level).length;

/** The last line. */
export const describeTotal = (findings: readonly Finding[]): string =>
  `${counted(findings.length, "check")}: ${having(findings, "ok")} ok, ${counted(having(findings, "warning"), "warning")}, ${counted(having(findings, "problem"), "problem")}`;

/** What `scripts/doctor.mts --json` prints. */
export interface Report {
  findings: readonly Finding[];
  ok: number;
  warnings: number;
  problems: number;
}

/** All findings, for scripts. */
export const reportOf = (findings: readonly Finding[]): Report => ({
  findings,
  ok: having(findings, "ok"),
  warnings: having(findings, "warning"),
  problems: having(findings, "problem"),
});
