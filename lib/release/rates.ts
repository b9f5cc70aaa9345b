import { COLORS, type Color } from "../color.ts";
import type { Logged } from "../nginx/access-log.ts";

/** The responses of one color in one second. */
export interface Second {
  responses: number;
  /** Those with a 5xx status. */
  errors: number;
}

/** The seconds of the last minute, oldest first; undefined while the log was not followed. */
export type Minute = readonly (Second | undefined)[];

/** The responses of each color per second, in the last minute. */
export interface Rates {
  /** The log is followed from now on. */
  begin(nowMs: number): void;
  /** It is not followed any more. */
  end(nowMs: number): void;
  add(logged: Pick<Logged, "color" | "status" | "atMs">, nowMs: number): void;
  lastMinute(nowMs: number): Record<Color, Minute>;
}

const SECONDS = 60;

/** The last minute ends this many seconds ago: nginx buffers its log for one second, so later seconds are incomplete. */
const BEHIND = 2;

/** A line that is older than this on arrival comes from an engine with another clock. */
const LATEST = 4;

const second = (ms: number): number => Math.floor(ms / 1000);

/** Counts the responses of the last minute. */
export function newRates(): Rates {
  const counted = new Map<number, Record<Color, Second>>();
  let periods: { from: number; to: number }[] = [];
  const oldest = (now: number): number => now - BEHIND - SECONDS + 1;
  const of = (at: number): Record<Color, Second> => {
    const there = counted.get(at);
    if (there) return there;
    const empty = { blue: { responses: 0, errors: 0 }, green: { responses: 0, errors: 0 } };
    counted.set(at, empty);
    return empty;
  };
  return {
    begin: (nowMs) => void periods.push({ from: second(nowMs) + 1, to: Number.POSITIVE_INFINITY }),
    end: (nowMs) => {
      const now = second(nowMs);
      periods = periods.map(({ from, to }) => ({ from, to: Math.min(to, now - 1) }));
      periods = periods.filter(({ to }) => to >= oldest(now));
    },
    add: ({ color, status, atMs }, nowMs) => {
      const now = second(nowMs);
      for (const at of counted.keys()) if (at < oldest(now)) counted.delete(at);
      // The time in the line, because nginx writes the lines of a second together, and not every second.
      const one = of(Math.min(now, Math.max(second(atMs), now - LATEST)))[color];
      one.responses++;
      if (status >= 500) one.errors++;
    },
    lastMinute: (nowMs) => {
      const from = oldest(second(nowMs));
      const seconds = Array.from({ length: SECONDS }, (_, i) => from + i);
      const isKnown = (at: number): boolean => periods.some((period) => period.from <= at && at <= period.to);
      const [blue, green] = COLORS.map((color) =>
        seconds.map((at) =>
          isKnown(at) ? (counted.get(at)?.[color] ?? { responses: 0, errors: 0 }) : undefined,
        ),
      );
      return { blue: blue ?? [], green: green ?? [] };
    },
  };
}
