import type { Shot } from "./testbed/load.ts";

/** One switch of a contender, in ms since its load began. */
export interface Switch {
  /** The command that moves traffic was given: the link was swapped, or Compose was called. */
  command: number;
  /** The first answer by the new build had arrived. */
  firstAnswer: number;
  /** The old container was told to stop, and had stopped. */
  stop: number;
  stopped: number;
  /** What the step that moves the traffic took, where there is one. */
  step?: number;
}

/** How long this tool's own work takes when nothing else is going on: medians of a few runs, in ms. */
export interface OwnTimes {
  /** A deploy, less build, container start, the API's own boot and VERIFY_SECONDS. */
  deploy: number;
  /** A rollback to a stopped container, from the command to the first new answer, less the API's own boot. */
  rollback: number;
  /** A rollback to a paused color, from the command to the first new answer, the interpreter included. */
  warmRollback: number;
  /** From the swap of the link to the first new answer. */
  switch: number;
  /** What those above are made of, by name. */
  parts: Readonly<Record<string, number>>;
}

/** What a contender did to the same load. */
export interface Outcome {
  name: string;
  shots: readonly Shot[];
  /** The steady time before the first switch, in ms. */
  steady: number;
  switches: readonly Switch[];
}

export interface Figures {
  requests: number;
  failures: Record<string, number>;
  failed: number;
  failedPerSwitch: number;
  /** The longest time without a successful quick answer, in ms: the one in switches, and the one outside them. */
  longestGap: [number, number];
  p50Steady: number;
  p99Steady: number;
  p50Switch: number;
  p99Switch: number;
  /** Milliseconds from the command to the first new answer: the median and the worst. */
  firstAnswer: [number, number];
}

/** The value below which a share of the sorted values lies; NaN for none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

const isQuick = ({ kind }: Shot): boolean => kind === "post" || kind === "get";

/** Counts and times of one contender. "In switches" is from each command to half a second after the old one's stop. */
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
