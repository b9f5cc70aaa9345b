import type { Shot } from "./testbed/load.ts";

/** One switch of a contender, in ms since its load started. */
export interface Switch {
  /** When the switch was requested: the link was swapped, or Compose was called. */
  command: number;
  /** When the first response from the new build had arrived. */
  firstAnswer: number;
  /** When the stop of the old container began, and when it had stopped. */
  stop: number;
  stopped: number;
  /** The duration of the step that moves the traffic, if there is one. */
  step?: number;
}

/** The duration of this tool's own work without load: medians of a few runs, in ms. */
export interface OwnTimes {
  /** A deploy, without the build, the container start, the API's boot and VERIFY_SECONDS. */
  deploy: number;
  /** A rollback to a stopped color, from the command to its first response, without the API's boot. */
  rollback: number;
  /** A rollback to a paused color, from the command to its first response, including the start of Node. */
  warmRollback: number;
  /** From the swap of the link to the first response from the new color. */
  switch: number;
  /** The parts of the durations above, by name. */
  parts: Readonly<Record<string, number>>;
}

/** How the load fared with one contender. */
export interface Outcome {
  name: string;
  shots: readonly Shot[];
  /** The time under load before the first switch, in ms. */
  steady: number;
  switches: readonly Switch[];
}

export interface Figures {
  requests: number;
  failures: Record<string, number>;
  failed: number;
  failedPerSwitch: number;
  /** The longest time without a successful quick response, in ms: in switches, and outside them. */
  longestGap: [number, number];
  p50Steady: number;
  p99Steady: number;
  p50Switch: number;
  p99Switch: number;
  /** Milliseconds from the command to the first response from the new build: median and maximum. */
  firstAnswer: [number, number];
}

/** The value below which this share of the values lies; NaN if there are no values. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

const isQuick = ({ kind }: Shot): boolean => kind === "post" || kind === "get";

/** Counts and times of one contender. A switch lasts from its command until 0.5 s after the old container has stopped. */
export function figuresOf({ shots, steady, switches }: Outcome): Figures {
  const failures: Record<string, number> = {};
  for (const { kind, failure } of shots) {
    if (failure) failures[`${kind} ${failure}`] = (failures[`${kind} ${failure}`] ?? 0) + 1;
  }
  const failed = Object.values(failures).reduce((sum, count) => sum + count, 0);
  const answers = shots.filter((shot) => isQuick(shot) && !shot.failure);
  const ends = answers.map(({ at, ms }) => at + ms).toSorted((a, b) => a - b);
  const touchesSwitch = (from: number, to: number): boolean =>
    switches.some(({ command, stopped }) => to >= command && from <= stopped + 500);
  const inSwitch = answers.filter(({ at, ms }) => touchesSwitch(at, at + ms));
  const longestGap = (inSwitches: boolean): number =>
    ends.reduce((longest, end, i) => {
      const from = ends[i - 1] ?? end;
      return touchesSwitch(from, end) === inSwitches ? Math.max(longest, end - from) : longest;
    }, 0);
  const steadyTimes = answers.filter(({ at }) => at < steady).map(({ ms }) => ms);
  const switchTimes = inSwitch.map(({ ms }) => ms);
  const toFirst = switches.map(({ command, firstAnswer }) => firstAnswer - command);
  return {
    requests: shots.length,
    failures,
    failed,
    failedPerSwitch: failed / switches.length,
    longestGap: [longestGap(true), longestGap(false)],
    p50Steady: quantile(steadyTimes, 0.5),
    p99Steady: quantile(steadyTimes, 0.99),
    p50Switch: quantile(switchTimes, 0.5),
    p99Switch: quantile(switchTimes, 0.99),
    firstAnswer: [quantile(toFirst, 0.5), Math.max(...toFirst)],
  };
}
