#!/usr/bin/env -S npx tsx
import { watch } from "node:fs";
import { readFile, rename, symlink, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { $, type ProcessOutput } from "zx/core";
import { type Color, getInactiveColor } from "../lib/color.ts";
import { newKeyFile } from "../lib/nginx/key.ts";
import { ROOT } from "../lib/settings.ts";
import { replaceLink } from "../lib/util/atomic.ts";
import { clientsTable, manyClients } from "./clients.ts";
import { type Outcome, type OwnTimes, quantile, type Switch } from "./figures.ts";
import { ownTable, PAUSE_MS, partsTable, picture, saturationTable, table } from "./report.ts";
import { CONNECTIONS, saturate } from "./saturation.ts";
import { measureSwarm, swarmTable } from "./swarm.ts";
import { type Load, type Mix, startLoad } from "./testbed/load.ts";
import { addVaultFile, createScratch, type Scratch, waitFor } from "./testbed/scratch.ts";
import { judgeReleases, verdictTables } from "./verdict.ts";

const HELP = `Measures releases and nginx, on separate stacks, and writes docs/bench.md and docs/bench.svg.

Usage: npm run bench -- [--only SECTION] [--switches N] [--others N] [--steady S] [--seconds S] [--release-seconds S]
                        [--judged N]

  --only SECTION       measure only one of these; all of them take over an hour
      own              the times of this tool itself, without load
      releases         this tool, the usual recipe and Compose in place, under the same load
      saturation       nginx, HAProxy, Caddy and the API without a proxy, each at full load
      clients          1,000 keep-alive clients and 500 open streams, during 20 switches
      verdict          releases of APIs that fail their clients, and of others that do not
      swarm            replicas on three engines, next to Swarm's own updates; only if it is named. Needs root
  --switches N         releases: switches with this tool (default 10)
  --others N           releases: switches in each of the other two ways (default 10)
  --steady S           releases: seconds of load before the first switch (default 60)
  --seconds S          saturation: seconds for each proxy and method (default 60)
  --release-seconds S  saturation: seconds of load with ten releases (default 300)
  --swarm              the same as --only swarm; 20 switches by default
  --judged N           verdict: releases of a healthy API, under load and without (default 50)`;

const MIX: Mix = { clients: { post: 25, get: 25, slow: 5, stream: 5 }, thinkMs: 100, patientMs: [0, 0] };
const QUIET_RUNS = 5;

type Contender = (stack: Scratch, load: Load, version: string) => Promise<Switch>;

const expectDone = (run: ProcessOutput): ProcessOutput => {
  if (run.exitCode !== 0) throw new Error(run.stdall);
  return run;
};

/** When the first answer by a new build arrived. Looks back from the newest: going through all would hold up the clients. */
async function firstAnswer(
  { shots }: Load,
  command: number,
  isNew: (color: string, at: number) => boolean,
): Promise<number> {
  for (;;) {
    let first: number | undefined;
    for (const { color, at, ms } of shots.slice(
      shots.findLastIndex((shot) => shot.at + shot.ms < command) + 1,
    )) {
      if (color !== undefined && isNew(color, at)) first ??= at + ms;
    }
    if (first !== undefined) return first;
    await sleep(50);
  }
}

const servingColor = async (stack: Scratch): Promise<Color> =>
  (await stack.get()).color === "blue" ? "blue" : "green";

const took = (run: ProcessOutput, step: string): number =>
  Number(run.stdout.match(new RegExp(`✓ ${step}.*\\((.*) s\\)`))?.[1]);

/** Does something that switches nginx, and tells when the link was swapped: the moment of the command to switch. */
async function watchingLink<T>(stack: Scratch, load: Load, act: () => Promise<T>): Promise<[T, number]> {
  let command = Number.NaN;
  const watcher = watch(join(stack.folder, "nginx"), (_, file) => {
    // The last swap is the switch: the first release makes the link long before, where there was none.
    if (file === "active-upstream.conf") command = load.now();
  });
  const result = await act();
  watcher.close();
  return [result, command];
}

/** This tool: a whole deploy. */
const thisTool: Contender = async (stack, load, version) => {
  const next = getInactiveColor(await servingColor(stack));
  const context = await stack.apiVersion(version);
  const [since, sinceWall] = [load.now(), Date.now()];
  const [run, command] = await watchingLink(stack, load, () => stack.deploy([], context));
  expectDone(run);
  const stopped = Date.parse(run.stdout.match(/^(\S+) ✓ stop /m)?.[1] ?? "") - sinceWall + since;
  return {
    command,
    firstAnswer: await firstAnswer(load, command, (color) => color === next),
    stop: stopped - took(run, "stop") * 1000,
    stopped,
    step: took(run, "switch nginx") * 1000,
  };
};

/** Asks over a new connection each time, until the color answers; tells when that was, by the load's clock. */
async function firstFreshAnswer(stack: Scratch, load: Load, color: Color): Promise<number> {
  while ((await stack.get()).color !== color) await sleep(5);
  return load.now();
}

/** Runs an act several times and gives the median of what it took, in ms. */
async function medianOf(act: (i: number) => Promise<number>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < QUIET_RUNS; i++) times.push(await act(i));
  return quantile(times, 0.5);
}

const timed = async (act: () => Promise<unknown>): Promise<number> => {
  const since = performance.now();
  await act();
  return performance.now() - since;
};

/** nginx's own part of a switch, there and back: the signal is given inside its container, nothing is tested or asked before. */
async function bareReloads(stack: Scratch, load: Load): Promise<number> {
  const serving = await servingColor(stack);
  const times: number[] = [];
  for (const color of Array.from({ length: QUIET_RUNS }, () => [getInactiveColor(serving), serving]).flat()) {
    const inside = $({ quiet: true })`docker exec -i ${stack.nginxContainer} sh`;
    await sleep(500); // the shell is there, and old workers of the last time, which still accept for a while, are not
    const answer = firstFreshAnswer(stack, load, color);
    await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), `${color}-upstream.conf`);
    const signalled = load.now();
    inside.stdin.end("kill -HUP 1\n");
    times.push((await answer) - signalled);
    await inside;
  }
  await sleep(500);
  return quantile(times, 0.5);
}

/** A rollback to a paused color, from the command to the first new answer, the interpreter included. */
async function warmRollbacks(stack: Scratch, load: Load): Promise<number> {
  const paused = { STANDBY: "paused" };
  expectDone(await stack.rollback([], paused));
  const median = await medianOf(async () => {
    const next = getInactiveColor(await servingColor(stack));
    const asked = load.now();
    const answer = firstFreshAnswer(stack, load, next);
    expectDone(await stack.rollback([], paused));
    return (await answer) - asked;
  });
  expectDone(await stack.rollback());
  return median;
}

/** Times deploys and rollbacks of this tool, on a stack of their own, while nothing but one watcher asks. */
async function ownTimes(): Promise<OwnTimes> {
  const stack = await createScratch("bench");
  try {
    Object.assign(stack.env, { API_IDLE_SECONDS: "2", VERIFY_SECONDS: "1", DRAIN_SECONDS: "30" });
    await addVaultFile(stack);
    expectDone(await stack.compose("up", "-d"));
    await waitFor("blue serves", async () => (await stack.get()).status === 200);
    return await measureOwnTimes(stack);
  } finally {
    await stack.remove();
  }
}

async function measureOwnTimes(stack: Scratch): Promise<OwnTimes> {
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, { ...MIX, clients: {} }); // its clock only
  const deploy = await medianOf(async (i) => {
    const context = await stack.apiVersion(`1.${i + 1}.0`);
    const start = load.now();
    const run = expectDone(await stack.deploy([], context));
    const wall = load.now() - start;
    const notOurs = took(run, "build") + took(run, "start") + took(run, "verify");
    return wall - notOurs * 1000 - (await bootMs(stack, await servingColor(stack)));
  });
  const [switches, starts, healths]: [number[], number[], number[]] = [[], [], []];
  const rollback = await medianOf(async () => {
    const next = getInactiveColor(await servingColor(stack));
    const asked = load.now();
    const answer = firstFreshAnswer(stack, load, next);
    const [run, command] = await watchingLink(stack, load, () => stack.rollback());
    expectDone(run);
    const boot = await bootMs(stack, next);
    switches.push((await answer) - command);
    starts.push(took(run, "start") * 1000);
    healths.push(took(run, "check the health") * 1000 - boot);
    return (await answer) - asked - boot;
  });
  const warmRollback = await warmRollbacks(stack, load);
  const inNginx = (line: string) => timed(() => stack.docker("exec", stack.nginxContainer, "sh", "-c", line));
  const exec = await medianOf(() => inNginx("true"));
  const test = await medianOf(() => inNginx("nginx -t -q -c /etc/nginx/nginx-blue-green.conf"));
  const first = quantile(switches, 0.5);
  const interpreter = await medianOf(() => timed(() => stack.rollback(["--help"])));
  const [start, health] = [quantile(starts, 0.5), quantile(healths, 0.5)];
  return {
    deploy,
    rollback,
    warmRollback,
    switch: first,
    parts: {
      "switch: from the link change to the first response from the new color": first,
      "– of which `docker exec`, the only way into the container": exec,
      "– of which `nginx -t`; without it, nginx would reject a bad configuration silently": test - exec,
      "– for comparison, a bare HUP to nginx, to its first response from the new color": await bareReloads(
        stack,
        load,
      ),
      "rollback: from the command to the first response from the new color, without API boot": rollback,
      "– of which starting Node and loading the script (`--help`)": interpreter,
      "– of which inspecting Docker, nginx, colors, image and port; lock and log":
        rollback - interpreter - start - health - first,
      "– of which `docker start`": start,
      "– of which waiting until nginx has the API's address (it resolves the name once a second), without API boot":
        health,
      "rollback with STANDBY=paused: from the command to the first response from the new color, everything included":
        warmRollback,
    },
  };
}

/** From the container's start to uvicorn's "running", by the container's own clock and log. */
async function bootMs(stack: Scratch, color: Color): Promise<number> {
  const name = `${stack.project}-api-${color}`;
  const started = Date.parse(await stack.field(name, "{{.State.StartedAt}}"));
  const { stderr, stdout } = await stack.docker("logs", "--timestamps", name);
  const line = `${stdout}${stderr}`.split("\n").findLast((text) => text.includes("Uvicorn running"));
  return Date.parse(line?.split(" ")[0] ?? "") - started;
}

/** The recipe: start the other, swap the link, plain reload, stop the old at once. */
const recipe: Contender = async (stack, load, version) => {
  const old = await servingColor(stack);
  const next = getInactiveColor(old);
  Object.assign(stack.env, await stack.apiVersion(version));
  expectDone(await stack.compose("up", "-d", "--build", "--no-deps", `loop-api-${next}`));
  await waitFor(`${next} is healthy`, async () => (await stack.get(`/_loop/${next}/health`)).status === 200);
  const link = join(stack.folder, "nginx/active-upstream.conf");
  await symlink(`${next}-upstream.conf`, `${link}.new`);
  const command = load.now();
  await rename(`${link}.new`, link);
  expectDone(
    await stack.docker(
      "exec",
      stack.nginxContainer,
      "nginx",
      "-s",
      "reload",
      "-c",
      "/etc/nginx/nginx-blue-green.conf",
    ),
  );
  const stop = load.now();
  expectDone(await stack.docker("stop", `${stack.project}-api-${old}`));
  const stopped = load.now();
  return { command, stop, stopped, firstAnswer: await firstAnswer(load, command, (color) => color === next) };
};

/** In place: what the owner did before. Compose builds, then stops the old container and starts the new one. */
const inPlace: Contender = async (stack, load, version) => {
  const container = `${stack.project}-api-blue`;
  Object.assign(stack.env, await stack.apiVersion(version));
  const [command, commandWall] = [load.now(), Date.now()];
  expectDone(await stack.compose("up", "-d", "--build", "loop-api-blue"));
  const started = Date.parse(await stack.field(container, "{{.State.StartedAt}}")) - commandWall + command;
  const answered = await firstAnswer(load, command, (_, at) => at >= started);
  return { command, firstAnswer: answered, stop: command, stopped: answered };
};

async function compete(
  name: string,
  contender: Contender,
  count: number,
  steadySeconds: number,
  protectedConf: boolean,
): Promise<Outcome> {
  const stack = await createScratch("bench");
  try {
    Object.assign(stack.env, { API_IDLE_SECONDS: "2", VERIFY_SECONDS: "1", DRAIN_SECONDS: "30" });
    if (!protectedConf) {
      const file = join(stack.folder, "nginx/nginx-blue-green.conf");
      await writeFile(file, (await readFile(file, "utf8")).replace(/^ *keepalive_min_timeout .*$/m, ""));
    }
    // The recipe asks nginx whether it reaches the new color, too: it needs the key that a run would have made.
    const key = await newKeyFile({ nginxFolder: join(stack.folder, "nginx") });
    if (key) await writeFile(key.file, key.content);
    await addVaultFile(stack);
    expectDone(await stack.compose("up", "-d"));
    await waitFor("blue serves", async () => (await stack.get()).status === 200);
    const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, MIX);
    await sleep(steadySeconds * 1000);
    const steady = load.now();
    const switches: Switch[] = [];
    let [seen, failed] = [0, 0];
    for (let i = 1; i <= count; i++) {
      switches.push(await contender(stack, load, `2.${i}.0`));
      failed += load.shots.slice(seen).filter(({ failure }) => failure).length;
      seen = load.shots.length;
      console.log(`${name}: ${i} of ${count}, ${seen} requests, ${failed} failed`);
      await sleep(PAUSE_MS);
    }
    return { name, shots: await load.stop(), steady, switches };
  } finally {
    await stack.remove();
  }
}

async function machine(stack: Scratch): Promise<string> {
  const [docker, compose, nginx] = await Promise.all([
    stack.docker("version", "--format", "{{.Server.Version}}"),
    stack.compose("version", "--short"),
    stack.docker("run", "--rm", "nginx:1.30", "nginx", "-v"),
  ]);
  const parts = [
    `Docker Engine ${docker.stdout.trim()}`,
    `Compose ${compose.stdout.trim()}`,
    nginx.stderr.trim().replace("nginx version: ", ""),
  ];
  return `${cpus().length} cores (${cpus()[0]?.model ?? "unknown"}), Node ${process.version}, ${parts.join(", ")}`;
}

async function place(): Promise<string> {
  const idle = await createScratch("bench");
  const where = await machine(idle);
  await idle.remove();
  return `${new Date().toISOString().slice(0, 10)} on ${where}`;
}

/** Puts a text between its marks in a page; the rest of the page stays. */
async function publish(page: string, mark: string, text: string): Promise<void> {
  const file = join(ROOT, page);
  const marked = new RegExp(`(<!-- ${mark} -->\n)[\\s\\S]*(<!-- /${mark} -->)`);
  const written = (await readFile(file, "utf8")).replace(
    marked,
    (_, open: string, close: string) => `${open}${text}\n${close}`,
  );
  await writeFile(file, written);
}

async function compare(switches: number, others: number, steady: number): Promise<void> {
  const outcomes = [
    await compete("this tool", thisTool, switches, steady, true),
    await compete("usual recipe: change the link, plain reload, stop", recipe, others, steady, false),
    await compete("in place: docker compose up -d --build", inPlace, others, steady, true),
  ];
  const text = `${table(outcomes)}

Measured ${await place()}, with the load generator on the same machine.
The load: 50 keep-alive clients (half POST \`/mcp\`, half GET) with ${MIX.thinkMs} ms mean think time, plus 5 slow calls and 5 streams
open at any time; it ran for ${steady} s before the first switch. "During switches" means from each switch command until half a second
after the old container has stopped.
Repeat with \`npm run bench -- --only releases --switches ${switches} --others ${others} --steady ${steady}\`.`;
  await writeFile(join(ROOT, "docs/bench.svg"), picture(outcomes));
  await publish("docs/bench.md", "bench", text);
}

async function timeOwn(): Promise<void> {
  const own = await ownTimes();
  const measured = `Measured ${await place()}, with the scripts started by \`node --import tsx\`. Repeat with \`npm run bench -- --only own\`.`;
  await publish("docs/bench.md", "own", `${ownTable(own)}\n\n${partsTable(own)}\n\n${measured}`);
}

async function compareWays(seconds: number, releaseSeconds: number): Promise<void> {
  const { tables, reach } = await saturate(seconds, releaseSeconds);
  const measured = `Measured ${await place()}, with the load generator (wrk, ${CONNECTIONS} connections, no think time) on the same machine.
Each proxy and method ran for ${seconds} s, and the row with ten releases for ${releaseSeconds} s (half of the connections sent GET, half POST).
The proxies log each request, unless the row says otherwise; the API does not.
Repeat with \`npm run bench -- --only saturation --seconds ${seconds} --release-seconds ${releaseSeconds}\`.`;
  const all = tables.map((one) => `In front of ${one.api}:\n\n${saturationTable(one)}`).join("\n\n");
  const lines = `Docker keeps ${reach.lines.toLocaleString("en")} lines of nginx's access log (${reach.megabytes.toFixed(0)} MB).`;
  await publish("docs/bench.md", "saturation", `${all}\n\n${lines}\n\n${measured}`);
}

async function countClients(): Promise<void> {
  const text = clientsTable(await manyClients());
  await publish(
    "docs/bench.md",
    "clients",
    `${text}\n\nMeasured ${await place()}. Repeat with \`npm run bench -- --only clients\`.`,
  );
}

async function judge(releases: number): Promise<void> {
  const text = verdictTables(await judgeReleases(releases));
  const repeat = `Repeat with \`npm run bench -- --only verdict --judged ${releases}\`.`;
  await publish("docs/bench.md", "verdict", `${text}\n\nMeasured ${await place()}. ${repeat}`);
}

async function compareSwarm(switches: number): Promise<void> {
  const rows = await measureSwarm(switches, (row) => console.log(swarmTable([row])));
  const skipped = rows.some(({ way }) => way.includes("VIP"))
    ? ""
    : "\nSwarm's own update behind its virtual IP was not measured: the kernel of this machine has no virtual IPs (IPVS).";
  const text = swarmTable(rows);
  const about = `The load: 24 keep-alive clients with ${MIX.thinkMs} ms mean think time, 3 slow calls and 3 streams open at any time. The engines are in network
namespaces of one machine, so more replicas do not bring more requests per second here.${skipped}
Measured ${await place()}, with the load generator on the same machine. Repeat with \`npm run bench -- --swarm\`.`;
  await publish("docs/bench.md", "swarm", `${text}\n\n${about}`);
}

const { values } = parseArgs({
  options: {
    help: { type: "boolean", short: "h", default: false },
    only: { type: "string" },
    swarm: { type: "boolean", default: false },
    switches: { type: "string" },
    others: { type: "string", default: "10" },
    steady: { type: "string", default: "60" },
    seconds: { type: "string", default: "60" },
    "release-seconds": { type: "string", default: "300" },
    judged: { type: "string", default: "50" },
  },
});
const SECTIONS: Readonly<Record<string, () => Promise<void>>> = {
  own: timeOwn,
  releases: () => compare(Number(values.switches ?? 10), Number(values.others), Number(values.steady)),
  saturation: () => compareWays(Number(values.seconds), Number(values["release-seconds"])),
  clients: countClients,
  verdict: () => judge(Number(values.judged)),
  swarm: () => compareSwarm(Number(values.switches ?? 20)),
};
if (values.help) {
  console.log(HELP);
} else {
  const all = Object.keys(SECTIONS).filter((name) => name !== "swarm");
  const only = values.swarm ? "swarm" : values.only;
  const chosen = only === undefined ? all : [only];
  for (const name of chosen) {
    const section = SECTIONS[name];
    if (!section) throw new Error(`There is no section ${name}: ${Object.keys(SECTIONS).join(", ")}`);
    await section();
  }
}
