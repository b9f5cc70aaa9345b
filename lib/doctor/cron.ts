import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname } from "node:path";
import { which } from "zx/core";
import { findDocker } from "../settings-schema.ts";
import { ok, type Verdict, warning } from "./finding.ts";

/** The time of the nightly release in the documentation: `0 3 * * *`. */
const NIGHTLY = "03:00";

/** PATH in cron's jobs, unless the crontab sets another. */
const CRON_PATH = "/usr/bin:/bin";

const HALF_HOUR_MS = 1_800_000;

/** Zones change their clocks on the full or the half hour, twice a year. */
const DAYS_AHEAD = 366;

/** The time zone of this shell. */
const shellZone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;

/** The time zone of this system, which cron uses: a job does not see TZ of this shell. Undefined when it is unknown. */
function systemZone(): string | undefined {
  if (!process.env.TZ) return shellZone();
  try {
    if (!existsSync("/etc/localtime")) return "UTC";
    const [, linked] = realpathSync("/etc/localtime").match(/zoneinfo\/(?:posix\/|right\/)?(.+)$/) ?? [];
    return linked ?? (readFileSync("/etc/timezone", "utf8").trim() || undefined);
  } catch {
    return undefined;
  }
}

/** A time of day and a date in a zone, such as 03:00 and 2026-11-26. */
function clockIn(zone: string): (ms: number) => { time: string; date: string } {
  const format = new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short", timeStyle: "short" });
  return (ms) => {
    const [date = "", time = ""] = format.format(ms).split(" ");
    return { time, date };
  };
}

/** When it is this time of day in a zone during the next days, in ms since 1970. */
function timesOf(time: string, zone: string, nowMs: number, days: number): number[] {
  const clock = clockIn(zone);
  const first = Math.ceil(nowMs / HALF_HOUR_MS) * HALF_HOUR_MS;
  const halfHours = Array.from({ length: days * 48 }, (_, i) => first + i * HALF_HOUR_MS);
  return halfHours.filter((ms) => clock(ms).time === time);
}

/** The first day of the next year on which this time of day does not exist in a zone, or exists twice. */
export function oddDay(
  time: string,
  zone: string,
  nowMs: number,
): { date: string; times: "none" | "two" } | undefined {
  const clock = clockIn(zone);
  const times = timesOf(time, zone, nowMs, DAYS_AHEAD);
  for (const [i, ms] of times.entries()) {
    const hours = (ms - (times[i - 1] ?? ms)) / 3_600_000;
    if (hours > 36) return { date: clock((times[i - 1] ?? ms) + 24 * 3_600_000).date, times: "none" };
    if (hours > 0 && hours < 12) return { date: clock(ms).date, times: "two" };
  }
  return undefined;
}

/** Compares the time zones of cron and of this shell, and says when a nightly release would run. */
export function compareZones(cron: string | undefined, shell: string, nowMs: number): Verdict {
  const move = `Choose another time than ${NIGHTLY} in the crontab.`;
  if (cron === undefined)
    return warning(
      "the time zone of cron is unknown",
      `Run date in a cron job, to see in which time zone ${NIGHTLY} is.`,
    );
  const odd = oddDay(NIGHTLY, cron, nowMs);
  if (odd)
    return warning(
      odd.times === "none"
        ? `on ${odd.date}, ${NIGHTLY} does not exist in ${cron}: a nightly release may be skipped`
        : `on ${odd.date}, ${NIGHTLY} exists twice in ${cron}: a nightly release may run twice`,
      move,
    );
  const [next = nowMs] = timesOf(NIGHTLY, cron, nowMs, 3);
  const here = clockIn(shell)(next).time;
  if (here !== NIGHTLY)
    return warning(
      `cron uses ${cron}, this shell ${shell}: a cron job with the schedule "0 3 * * *" would run at ${here} in this shell's time zone`,
      "Write the times in the crontab in cron's time zone.",
    );
  return ok(`a cron job with the schedule "0 3 * * *" would run at ${NIGHTLY} ${cron}`);
}

/** The same for this machine, now. */
export const checkZone = async (): Promise<Verdict> => compareZones(systemZone(), shellZone(), Date.now());

/** Do cron's jobs find the programs that a release needs? `searched` is their PATH. */
export async function checkCronPath(searched = CRON_PATH): Promise<Verdict> {
  const missing = [
    ...(which.sync("node", { nothrow: true, path: searched }) ? [] : ["node"]),
    ...(findDocker(searched) ? [] : ["docker"]),
  ];
  if (missing.length === 0) return ok(`${searched} has node and docker`);
  const here = missing.flatMap((name) => which.sync(name, { nothrow: true }) ?? []);
  const folders = [...new Set(here.map((program) => dirname(program)))];
  return warning(
    `cron's PATH is ${searched}, without ${missing.join(" and ")}`,
    `Put this line above the job: PATH=${[...folders, CRON_PATH].join(":")}`,
  );
}
