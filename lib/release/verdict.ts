import type { Color } from "../color.ts";
import { inspectColor, logsCommand } from "../engine/colors.ts";
import { VerdictError } from "../errors.ts";
import { followResponses, type Logged, recentResponses } from "../nginx/access-log.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import type { Comparison, Traffic } from "../traffic.ts";

/** Responses as they are counted. */
export interface Tally {
  responses: number;
  errors: number;
  seconds: number[];
  /** How often what failed. */
  failed: Map<string, number>;
}

/** Above this, durations are sampled by their last ones. */
const MOST_SECONDS = 100_000;

/** How many different requests are remembered as failed: their paths come from clients. */
const MOST_FAILED = 1000;

/** No responses yet. */
export const newTally = (): Tally => ({ responses: 0, errors: 0, seconds: [], failed: new Map() });

/** Adds a response. */
export function count(tally: Tally, { status, seconds, what }: Logged): void {
  tally.seconds[tally.responses % MOST_SECONDS] = seconds;
  tally.responses++;
  if (status < 500) return;
  tally.errors++;
  if (tally.failed.has(what) || tally.failed.size < MOST_FAILED)
    tally.failed.set(what, (tally.failed.get(what) ?? 0) + 1);
}

/** The figures of a tally. */
export function trafficOf({ responses, errors, seconds }: Tally): Traffic {
  const sorted = [...seconds].sort((a, b) => a - b);
  return { responses, errors, p95: sorted[Math.ceil(sorted.length * 0.95) - 1] ?? null };
}

const compare = (after: Tally, before: Tally, wasCut: boolean): Comparison => ({
  after: trafficOf(after),
  before: trafficOf(before),
  ...(wasCut ? { incomplete: true } : {}),
});

const shareOf = ({ responses, errors }: Pick<Tally, "responses" | "errors">): number =>
  responses === 0 ? 0 : errors / responses;

type Limits = Pick<Settings, "judge">;

type Verdict = "bad" | "good" | "too few";

/** How rare a share of errors must be for an unchanged API. The verdict is formed again and again, so chance gets many tries. */
const RARE = 1e-4;

/** What is assumed of an API before its responses are known: as if 0.2 of 20 had failed. */
const [ASSUMED_ERRORS, ASSUMED_RESPONSES] = [0.2, 20];

/**
 * Is the error rate higher than before, by more than chance? An API that always fails 2 % of its calls will at times fail 3 of
 * 50, and a rate that comes from a few responses is not exact. If none failed before, any error is more.
 */
function isWorse(now: Tally, before: Tally): boolean {
  if (before.errors === 0) return now.errors > 0;
  const [errors, responses] = [ASSUMED_ERRORS + before.errors, ASSUMED_RESPONSES + before.responses];
  if (shareOf(now) <= errors / responses) return false;
  return chanceOf(now.errors, now.responses, errors, responses - errors) < RARE;
}

/** How likely `errors` or more of `responses` are, given so many errors and successes so far: the beta-binomial distribution. */
function chanceOf(errors: number, responses: number, errorsSoFar: number, successesSoFar: number): number {
  let log = 0; // of the chance of exactly `errors`
  for (let i = 0; i < errors; i++)
    log +=
      Math.log(((responses - i) / (i + 1)) * (errorsSoFar + i)) - Math.log(errorsSoFar + successesSoFar + i);
  for (let i = 0; i < responses - errors; i++)
    log += Math.log((successesSoFar + i) / (errorsSoFar + successesSoFar + errors + i));
  let [term, sum] = [Math.exp(log), 0];
  for (let i = errors; i <= responses && term > 0; i++) {
    sum += term;
    term *= ((responses - i) / (i + 1)) * ((errorsSoFar + i) / (successesSoFar + responses - i - 1));
  }
  return sum;
}

/**
 * Compares the responses of a new color with those that the previous one sent before the new one got any traffic.
 *
 * | verdict | condition |
 * |---|---|
 * | bad | at least JUDGE_ERRORS responses with 5xx, at least JUDGE_PERCENT of all, and a higher error rate than before, by more than chance |
 * | good | at least JUDGE_RESPONSES responses, and not bad |
 * | too few | anything else |
 */
export function judge(now: Tally, before: Tally, { judge: { errors, percent, responses } }: Limits): Verdict {
  if (now.errors >= errors && shareOf(now) * 100 >= percent && isWorse(now, before)) return "bad";
  return now.responses >= responses ? "good" : "too few";
}

const percentOf = (tally: Tally): string => `${(shareOf(tally) * 100).toFixed(1)} %`;
/** The responses of a new color to clients, as they arrive. */
export interface Watch {
  /** Throws VerdictError as soon as the verdict is bad. */
  check(): void;
  /** The figures so far, in words. */
  describe(): string;
  stop(): void;
  /** Stops, prints the figures and returns them. */
  report(): { traffic: Comparison };
}

/**
 * Watches the responses of `next`, and reads what `previous` has answered so far. The log is the measure, so a response counts
 * when it has ended. Never throws.
 */
export async function watchTraffic(context: Context, previous: Color, next: Color): Promise<Watch> {
  const { settings, options, log } = context;
  const [before, after] = [newTally(), newTally()];
  let stop = (): void => undefined;
  let isOver = false;
  let wasCut = false; // Docker or nginx was restarted, or the log driver lets nobody read
  if (!options.dryRun) {
    const end = followResponses(
      context,
      (logged) => {
        if (logged.color === next) count(after, logged);
      },
      () => {
        wasCut ||= !isOver;
      },
    );
    stop = () => {
      isOver = true;
      end();
    };
    // Responses of an earlier release of that color, such as a failed one, say nothing about this one.
    const since = await startedMs(context, previous);
    for (const logged of await recentResponses(context))
      if (logged.color === previous && logged.atMs >= since) count(before, logged);
  }
  const describe = (): string => {
    const judged = judge(after, before, settings) === "too few" ? ": not judged" : "";
    return `${figures(after)}${wasCut ? " (incomplete: nginx's log ended early)" : ""}${judged}`;
  };
  return {
    check: () => {
      if (judge(after, before, settings) === "bad")
        throw verdictError(context, { next, previous }, [after, before], wasCut);
    },
    describe,
    stop,
    report: () => {
      stop();
      if (!options.dryRun)
        log.info(`${next} to clients: ${describe()}; ${previous} before: ${figures(before)}`);
      return { traffic: compare(after, before, wasCut) };
    },
  };
}

/** When a color was started, in ms since 1970, in whole seconds as in the log; 0 when Docker cannot tell. */
const startedMs = (context: Context, color: Color): Promise<number> =>
  inspectColor(context, color).then(
    ({ startedMs }) => Math.floor(startedMs / 1000) * 1000,
    () => 0,
  );

function figures(tally: Tally): string {
  const { responses, errors, p95 } = trafficOf(tally);
  const slow = p95 === null ? "" : `, 95 % within ${p95.toFixed(3)} s`;
  return `${responses} responses, ${errors} with 5xx${slow}`;
}

const FAILED_SHOWN = 5;

function verdictError(
  context: Context,
  { next, previous }: { next: Color; previous: Color },
  [after, before]: readonly [Tally, Tally],
  wasCut: boolean,
): VerdictError {
  const failed = [...after.failed].sort(([, a], [, b]) => b - a).slice(0, FAILED_SHOWN);
  return new VerdictError(
    `${next} fails its clients: ${after.errors} of ${after.responses} responses with 5xx (${percentOf(after)})`,
    {
      details: [
        `${previous} before: ${before.errors} of ${before.responses} (${percentOf(before)})`,
        ...failed.map(([what, times]) => `${times} × ${what}`),
      ].join("\n"),
      next: `See its log: ${logsCommand(context, next)}. Fix the cause and run this again.`,
      traffic: compare(after, before, wasCut),
    },
  );
}
