import { cp } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { $, type ProcessOutput } from "zx/core";
import { ROOT } from "../lib/settings.ts";
import { rewrite } from "./testbed/rewrite.ts";
import { CONNECTION_LINES, createScratch, type Scratch, waitFor } from "./testbed/scratch.ts";

const quiet = $({ quiet: true, nothrow: true, stdio: ["ignore", "pipe", "pipe"] });

export const CONNECTIONS = 32;
const METHODS = ["get", "post"] as const;
export type Method = (typeof METHODS)[number];

/** What wrk measured; times in ms. */
export interface Rate {
  requests: number;
  seconds: number;
  p50: number;
  p99: number;
  failed: number;
}

/** What one way to the API could carry. */
export interface Way {
  name: string;
  rates: Readonly<Record<Method, Rate>>;
}

/** All ways to one API, measured one after the other. The first is the API itself. */
export interface Saturation {
  api: string;
  ways: readonly Way[];
}

/** Where wrk goes: always 127.0.0.1, inside the network of that container. */
interface Target {
  name: string;
  container: string;
  port: number;
}

const done = (output: ProcessOutput): string => {
  if (output.exitCode !== 0) throw new Error(output.stdall);
  return output.stdout;
};

/** Loads a target from inside its own network, over so many connections without a pause, for so many seconds. */
export async function wrk(
  tools: string,
  { container, port }: Target,
  method: Method | "paced",
  seconds: number,
  connections = CONNECTIONS,
): Promise<Rate> {
  const load = ["wrk", "-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "10s"];
  const script = ["-s", `/bench/${method}.lua`, `http://127.0.0.1:${port}`];
  const output = done(
    await quiet`docker run --rm --network container:${container} ${tools} ${load} ${script}`,
  );
  const rate: Rate = JSON.parse(output.trim().split("\n").at(-1) ?? "");
  console.log(`  ${container} ${method}: ${JSON.stringify(rate)}`);
  return rate;
}

/** Builds the image with wrk and the other proxies. Returns its name; the caller removes it. */
export async function buildTools(stack: Scratch): Promise<string> {
  const tools = `${stack.project}-tools`;
  done(await stack.docker("build", "-t", tools, join(ROOT, "bench/tools")));
  return tools;
}

async function measure(tools: string, target: Target, seconds: number): Promise<Way> {
  const get = await wrk(tools, target, "get", seconds);
  const post = await wrk(tools, target, "post", seconds);
  return { name: target.name, rates: { get, post } };
}

/** A container beside the stack's, in its network; gives what removes it. */
async function beside(
  stack: Scratch,
  name: string,
  args: string[],
): Promise<Target & { remove(): Promise<unknown> }> {
  const container = `${stack.project}-${name.replaceAll(/\W+/g, "-").toLowerCase()}`;
  const options = ["--network", `${stack.project}_default`, "--ulimit", "nofile=16384:16384"];
  const log = ["--log-opt", "max-size=20m", "--log-opt", "max-file=5"];
  done(await stack.docker("run", "-d", "--name", container, ...options, ...log, ...args));
  const remove = () => stack.docker("rm", "--force", container);
  return { name, container, port: 8080, remove };
}

/** nginx as it is, but for one change of its folder. */
async function changedNginx(stack: Scratch, name: string, change: (folder: string) => Promise<void>) {
  const folder = join(stack.folder, name.replaceAll(/\W+/g, "-"));
  await cp(join(stack.folder, "nginx"), folder, { recursive: true, verbatimSymlinks: true });
  await change(folder);
  const options = ["--log-opt", "mode=non-blocking", "--volume", `${folder}:/etc/nginx:ro`, "nginx:1.30"];
  return beside(stack, name, [
    ...options,
    "nginx",
    "-c",
    "/etc/nginx/nginx-blue-green.conf",
    "-g",
    "daemon off;",
  ]);
}

const rewritten =
  (line: RegExp, by: string, name = "nginx-blue-green.conf") =>
  (folder: string) =>
    rewrite(join(folder, name), line, by);

type Maker = (stack: Scratch, tools: string, api: string) => Promise<Target & { remove(): Promise<unknown> }>;

const PROXIES: readonly Maker[] = [
  (stack, tools, api) =>
    beside(stack, "HAProxy", ["--env", `API=${api}`, tools, "haproxy", "-W", "-f", "/bench/haproxy.cfg"]),
  (stack, tools, api) =>
    beside(stack, "Caddy", ["--env", `API=${api}`, tools, "caddy", "run", "--config", "/bench/Caddyfile"]),
  (stack) =>
    changedNginx(
      stack,
      "nginx (this tool) with `keepalive 0`",
      rewritten(CONNECTION_LINES, "keepalive 0;", "api-upstreams.conf"),
    ),
];

const LOGS: readonly Maker[] = [
  (stack) =>
    changedNginx(stack, "nginx (this tool), one write per log line", rewritten(/ buffer=4k flush=1s/, "")),
  (stack) =>
    changedNginx(stack, "nginx (this tool) without a log", rewritten(/access_log .*;/, "access_log off;")),
];

/** Releases again and again, ten times in all, in the time that the load takes. */
async function release(stack: Scratch, seconds: number): Promise<void> {
  const since = performance.now();
  for (let i = 1; i <= 10; i++) {
    const run = await stack.deploy([], await stack.apiVersion(`3.${i}.0`));
    if (run.exitCode !== 0) throw new Error(run.stdall);
    await sleep(Math.max(0, since + ((i * seconds) / 10) * 1000 - performance.now()));
  }
}

/** Both methods at once, with half of the connections each, while this front door releases. */
async function underReleases(stack: Scratch, tools: string, target: Target, seconds: number): Promise<Way> {
  const [get, post] = await Promise.all([
    wrk(tools, target, "get", seconds, CONNECTIONS / 2),
    wrk(tools, target, "post", seconds, CONNECTIONS / 2),
    release(stack, seconds * 0.95),
  ]);
  return {
    name: "**nginx (this tool), during ten releases**, GET and POST at the same time",
    rates: { get, post },
  };
}

interface Reach {
  lines: number;
  megabytes: number;
}

/** How many lines of its access log nginx's container keeps, and how much they are. */
async function logReach({ nginxContainer }: Scratch): Promise<Reach> {
  const count = await quiet`docker logs ${nginxContainer} 2>/dev/null | wc -lc`;
  const [lines = 0, bytes = 0] = count.stdout.trim().split(/\s+/).map(Number);
  return { lines, megabytes: bytes / 1e6 };
}

/** Measures all ways to an API; with `releaseSeconds`, this front door also while it releases. */
async function ways(api: string, env: Record<string, string>, seconds: number, releaseSeconds?: number) {
  const stack = await createScratch("saturation");
  try {
    Object.assign(stack.env, { API_IDLE_SECONDS: "2" }, env, {
      VERIFY_SECONDS: "5",
      DRAIN_SECONDS: "30",
      HEALTH_RETRIES: "60",
    });
    const run = await stack.deploy();
    if (run.exitCode !== 0) throw new Error(run.stdall);
    const tools = await buildTools(stack);
    try {
      console.log(api);
      const direct = { name: "the API without a proxy", container: `${stack.project}-api-green`, port: 8081 };
      const ours = { name: "**nginx (this tool)**", container: stack.nginxContainer, port: 8080 };
      const measured = [await measure(tools, direct, seconds), await measure(tools, ours, seconds)];
      for (const make of [...PROXIES, ...(releaseSeconds ? [] : LOGS)]) {
        const target = await make(stack, tools, "loop-api-green:8081");
        const ready = () =>
          quiet`docker run --rm --network container:${target.container} ${tools} wrk -c1 -t1 -d1s -s /bench/get.lua http://127.0.0.1:8080`;
        await waitFor(`${target.name} serves`, async () => /"failed":0/.test((await ready()).stdout), 20);
        measured.push(await measure(tools, target, seconds));
        await target.remove();
      }
      if (releaseSeconds) measured.splice(2, 0, await underReleases(stack, tools, ours, releaseSeconds));
      return { saturation: { api, ways: measured }, reach: await logReach(stack) };
    } finally {
      await stack.docker("rmi", "--force", tools);
    }
  } finally {
    await stack.remove();
  }
}

/** The whole benchmark: in front of the example API, and of one that is not the bottleneck. */
export async function saturate(
  seconds: number,
  releaseSeconds: number,
): Promise<{ tables: Saturation[]; reach: Reach }> {
  const example = await ways("the example API (FastAPI)", {}, seconds, releaseSeconds);
  const fast = await ways("a static response", { LOOP_API_CONTEXT: join(ROOT, "bench/static-api") }, seconds);
  return { tables: [example.saturation, fast.saturation], reach: fast.reach };
}
