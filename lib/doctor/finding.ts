import { lastLines } from "../docker/cli.ts";
import { InterruptedError, ToolError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import type { Log } from "../run/log.ts";

/** `ok`: nothing to do. `warning`: a release would start, but may fail or behave unexpectedly. `problem`: a release would fail. */
export type Level = "ok" | "warning" | "problem";

/** What a check has seen. */
export interface Verdict {
  level: Level;
  /** In words: one line, or several that are joined when printed. */
  finding: string;
  /** What to do: a sentence. Missing if there is nothing to do. */
  next?: string;
}

/** The result of one check. */
export interface Finding extends Verdict {
  check: string;
}

/** One check: a question that is answered with one line. */
export interface Check {
  name: string;
  /** The checks without which it cannot be made: if one of them is a problem, this one is skipped. */
  needs: readonly string[];
  /** Throws what the functions of a release throw: the reason why a release would fail. */
  look(context: Context): Promise<Verdict>;
}

export const ok = (finding: string): Verdict => ({ level: "ok", finding });
export const warning = (finding: string, next: string): Verdict => ({ level: "warning", finding, next });
export const problem = (finding: string, next: string): Verdict => ({ level: "problem", finding, next });

/** The last lines of an error's details: the first ones of a long output rarely say why. */
const LINES_OF_DETAILS = 3;

/** An error as a verdict. Rethrows InterruptedError. */
export function verdictOf(error: unknown): Verdict {
  if (error instanceof InterruptedError) throw error;
  if (error instanceof ToolError) {
    const { message, details, next } = error;
    return problem(details ? `${message}: ${lastLines(details, LINES_OF_DETAILS)}` : message, next);
  }
  return problem(
    `Unexpected: ${error instanceof Error ? error.message : String(error)}`,
    "Report this: the check itself failed.",
  );
}

/**
 * Makes a check. What the functions of a release would have warned of is part of the finding. Throws InterruptedError.
 */
export async function make(
  check: string,
  { log, signal }: Pick<Context, "log" | "signal">,
  look: (log: Log) => Promise<Verdict>,
): Promise<Finding> {
  const warnings: string[] = [];
  const collecting = { ...log, info: () => undefined, warn: (text: string) => void warnings.push(text) };
  const verdict = await look(collecting).catch(verdictOf);
  signal.throwIfAborted(); // a check whose commands were killed says nothing
  if (verdict.level !== "ok" || warnings.length === 0) return { check, ...verdict };
  return { check, level: "warning", finding: warnings.join("\n") };
}
