import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { followResponses } from "../lib/nginx/access-log.ts";
import type { Context } from "../lib/run/context.ts";
import { readHistory } from "../lib/run/history.ts";
import { loadSettings, ROOT } from "../lib/settings.ts";
import { quantile } from "./figures.ts";
import { buildTools, type Rate, wrk } from "./saturation.ts";
import { type Load, startLoad } from "./testbed/load.ts";
import { createReleasedScratch, type Scratch } from "./testbed/scratch.ts";

/** Releases of an API that is no worse than before. */
export interface Healthy {
  name: string;
  releases: number;
  /** Taken back by the verdict. */
  alarms: number;
  /** Not done for any other reason. */
  failed: number;
  /** The responses that were judged, in all of them. */
  responses: number;
  errors: number;
}

/** Releases of a build that looks healthy and fails every call. */
export interface Failing {
  name: string;
  releases: number;
  /** Taken back by the verdict, with exit code 1 and the old color serving. */
  caught: number;
  calls: number;
  /** Those with 5xx. */
  failed: number;
  /** Those without any response. */
  lost: number;
  /** The largest share of failed calls of one release. */
  worst: number;
}

/** Clients at about 2,000 requests a second, with and without a run that reads nginx's log. Medians of several windows. */
export interface Reading {
  lines: number;
  without: Rate;
  reading: Rate;
}

/** The shortest that gives enough responses for a verdict. */
const VERIFY_SECONDS = "4";

const CLIENTS = { clients: { post: 20 }, thinkMs: 50, patientMs: [0, 0] } as const;
const urlOf = ({ env }: Scratch): string => `http://127.0.0.1:${env.NGINX_PORT}`;

async function withStack<T>(env: Record<string, string>, act: (stack: Scratch) => Promise<T>): Promise<T> {
  const stack = await createReleasedScratch("verdict", {
    API_IDLE_SECONDS: "2",
    DRAIN_SECONDS: "20",
    VERIFY_SECONDS: "0",
    ...env,
  });
  try {
    stack.env.VERIFY_SECONDS = VERIFY_SECONDS;
    return await act(stack);
  } finally {
    await stack.remove();
  }
}

/** Repeatedly releases an unchanged API. */
const releaseHealthy = (name: string, releases: number, fault: string, loaded: boolean): Promise<Healthy> =>
  withStack({ LOOP_FAULT: fault }, async (stack) => {
    const result: Healthy = { name, releases, alarms: 0, failed: 0, responses: 0, errors: 0 };
    const load = loaded ? startLoad(urlOf(stack), CLIENTS) : undefined;
    try {
      await sleep(3000);
      for (let i = 0; i < releases; i++) {
        const run = await stack.deploy();
        const { result: ended, traffic } = await lastEntry(stack);
        if (ended === "VerdictError") result.alarms++;
        else if (run.exitCode !== 0) result.failed++;
        if (run.exitCode !== 0) console.log(run.stdall);
        result.responses += traffic?.after.responses ?? 0;
        result.errors += traffic?.after.errors ?? 0;
      }
    } finally {
      await load?.stop();
    }
    console.log(result);
    return result;
  });

async function lastEntry({ stateDir }: Scratch) {
  const entry = (await readHistory(join(stateDir, "history.jsonl"))).at(-1);
  if (!entry) throw new Error("no run is in the history");
  return entry;
}

/** The clients of a failing release: from some seconds before it, for so many in all. */
const [LOAD_BEFORE_SECONDS, LOAD_SECONDS] = [10, 40];

/** Releases a build that fails every call, while clients call the API. */
const releaseFailing = (name: string, releases: number, env: Record<string, string>): Promise<Failing> =>
  withStack({}, async (stack) => {
    const result: Failing = { name, releases, caught: 0, calls: 0, failed: 0, lost: 0, worst: 0 };
    for (let i = 0; i < releases; i++) {
      const load = startLoad(urlOf(stack), CLIENTS);
      const before = (await stack.get()).color;
      await sleep(LOAD_BEFORE_SECONDS * 1000);
      const run = await stack.deploy([], { LOOP_FAULT: "fail=100", ...env });
      await sleep(Math.max(0, LOAD_SECONDS * 1000 - load.now()));
      const shots = await load.stop();
      const isBack = (await stack.get()).color === before;
      if (run.exitCode === 1 && isBack && (await lastEntry(stack)).result === "VerdictError") result.caught++;
      const failed = failuresOf(shots);
      result.calls += shots.length;
      result.failed += failed.filter((failure) => failure.startsWith("HTTP 5")).length;
      result.lost += failed.filter((failure) => !failure.startsWith("HTTP 5")).length;
      result.worst = Math.max(result.worst, failed.length / shots.length);
    }
    console.log(result);
    return result;
  });

const failuresOf = (shots: Load["shots"]): string[] => shots.flatMap(({ failure }) => failure ?? []);

const [WINDOWS, WINDOW_SECONDS] = [5, 10];

const medians = (rates: readonly Rate[]): Rate => {
  const of = (key: keyof Rate): number =>
    quantile(
      rates.map((rate) => rate[key]),
      0.5,
    );
  return {
    requests: of("requests"),
    seconds: of("seconds"),
    p50: of("p50"),
    p99: of("p99"),
    failed: of("failed"),
  };
};

/** What reading the log costs the clients: windows with and without it in turn, in front of an API that is not the bottleneck. */
const readLog = (): Promise<Reading> =>
  withStack({ LOOP_API_CONTEXT: join(ROOT, "bench/static-api") }, async (stack) => {
    const context = { settings: loadSettings(stack.env, join(stack.folder, "no file")) } as Context;
    const tools = await buildTools(stack);
    const target = { name: "nginx", container: stack.nginxContainer, port: 8080 };
    const rates: { without: Rate[]; reading: Rate[] } = { without: [], reading: [] };
    let lines = 0;
    try {
      for (let i = 0; i < WINDOWS; i++) {
        rates.without.push(await wrk(tools, target, "paced", WINDOW_SECONDS, 64));
        const stop = followResponses(context, () => {
          lines++;
        });
        rates.reading.push(await wrk(tools, target, "paced", WINDOW_SECONDS, 64));
        await sleep(1500); // the last lines
        stop();
      }
    } finally {
      await stack.docker("rmi", "--force", tools);
    }
    const seconds = rates.reading.reduce((sum, rate) => sum + rate.seconds, 0);
    return { lines: lines / seconds, without: medians(rates.without), reading: medians(rates.reading) };
  });

export interface Verdicts {
  healthy: readonly Healthy[];
  failing: readonly Failing[];
  reading: Reading;
}

/** The whole benchmark, with `releases` healthy releases under load and as many without. */
export async function judgeReleases(releases: number): Promise<Verdicts> {
  const some = Math.ceil(releases * 0.4);
  return {
    failing: [
      await releaseFailing("without a canary", Math.ceil(releases / 15), {}),
      await releaseFailing("`CANARY_PERCENT=10`", Math.ceil(releases / 15), { CANARY_PERCENT: "10" }),
    ],
    reading: await readLog(),
    // At the same time: a busy machine is a reason for false alarms, if there is one.
    healthy: await Promise.all([
      releaseHealthy("healthy, under load", releases, "", true),
      releaseHealthy("healthy, without load", releases, "", false),
      releaseHealthy("2 % with 5xx before and after, under load", some, "fail=2", true),
    ]),
  };
}

const whole = (value: number): string => Math.round(value).toLocaleString("en");
const percent = (part: number, all: number): string => `${((part / all) * 100).toFixed(2)} %`;

/** The figures as Markdown tables. */
export function verdictTables({ healthy, failing, reading }: Verdicts): string {
  const { lines, without, reading: read } = reading;
  const rate = ({ requests, seconds, p50, p99 }: Rate): string =>
    `${whole(requests / seconds)} | ${p50.toFixed(2)} | ${p99.toFixed(2)}`;
  return [
    `| a build that fails every call, ${LOAD_SECONDS} s of load around each release | releases | taken back | calls | answered with 5xx | without an answer | largest share of one release |`,
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...failing.map(
      (one) =>
        `| ${one.name} | ${one.releases} | ${one.caught} | ${whole(one.calls)} | ${whole(one.failed)} (${percent(one.failed, one.calls)}) | ${one.lost} | ${(one.worst * 100).toFixed(2)} % |`,
    ),
    "",
    "| an API that is as before | releases | false alarms | failed otherwise | responses judged | with 5xx |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
    ...healthy.map(
      (one) =>
        `| ${one.name} | ${one.releases} | ${one.alarms} | ${one.failed} | ${whole(one.responses)} | ${whole(one.errors)} |`,
    ),
    "",
    "| clients of nginx, medians | req/s | p50 ms | p99 ms |",
    "| --- | ---: | ---: | ---: |",
    `| nobody reads the log | ${rate(without)} |`,
    `| a run reads the log, ${whole(lines)} lines a second | ${rate(read)} |`,
    `| ratio | ${(read.requests / without.requests).toFixed(2)} | ${(read.p50 / without.p50).toFixed(2)} | ${(read.p99 / without.p99).toFixed(2)} |`,
  ].join("\n");
}
