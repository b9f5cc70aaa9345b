import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { $ } from "zx/core";
import { ROOT } from "../lib/settings.ts";
import { type Load, startLoad } from "./testbed/load.ts";
import { type Run, startRun, type Verb } from "./testbed/run.ts";
import { createScratch, type Scratch, waitFor } from "./testbed/scratch.ts";

const quiet = $({ quiet: true, nothrow: true, stdio: ["ignore", "pipe", "pipe"] });

/** What happens to a run, with how often of a hundred. */
const FAULTS = {
  SIGKILL: 35,
  SIGTERM: 12,
  SIGINT: 12,
  SIGHUP: 5,
  "unhealthy build, killed between reload and mark": 8,
  "vault unmounted, then mounted again": 5,
  "clock changed by 30 days": 4,
  "vault full": 4,
  "state folder full": 4,
  "nginx stopped": 4,
  "Docker daemon restarted": 4,
  "no fault": 3,
} as const;
type Fault = keyof typeof FAULTS;

/** It is healthy for a few seconds, so a single check does not detect it. */
const SICK = { LOOP_FAULT: "sick-after=5", VERIFY_SECONDS: "20" };

/** Every second deploy has a canary. */
const CANARY = { CANARY_PERCENT: "20", CANARY_SECONDS: "1" };

/** After these nginx is away for a while. */
const OUTAGES: readonly Fault[] = ["nginx stopped", "Docker daemon restarted"];

/** After so many runs comes one that nothing happens to: it must put everything right. */
const PLAIN_EVERY = 4;

interface Storm {
  runs: number;
  seed: number;
  /** Restart the Docker daemon now and then; only where nothing but this stack runs on it. */
  daemon: boolean;
  say(line: string): void;
}

export interface Report {
  runs: number;
  seed: number;
  daemon: boolean;
  faults: Record<string, number>;
  /** In which step a run was when it was killed. */
  steps: Record<string, number>;
  requests: number;
  /** Lost while nginx was up. */
  failed: Record<string, number>;
  /** Lost while nginx or the daemon was away on purpose. */
  lostInOutages: number;
  outages: number;
  plainRuns: number;
  /** What later runs reported that they put right. */
  repairs: Record<string, number>;
  /** What a plain run did not put right, with its output. */
  hands: string[];
  /** Builds that a plain run left marked as active and that no run had verified in full, each with that run's output. */
  unverified: string[];
}

const count = (counts: Record<string, number>, key: string): void => {
  counts[key] = (counts[key] ?? 0) + 1;
};

/** What fills a disk. */
const FILLER = "filler";

/** Numbers from 0 to 1 that a seed decides. */
function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function pickFault(roll: number, daemon: boolean): Fault {
  let left = roll * 100;
  for (const [fault, share] of Object.entries(FAULTS)) {
    left -= share;
    if (left < 0) return fault === "Docker daemon restarted" && !daemon ? "SIGKILL" : (fault as Fault);
  }
  return "no fault";
}

const REPAIRS: [RegExp, string][] = [
  [/was killed before it finished/, "found a killed run"],
  [/waiting for its last command/, "waited for the last command of a killed run"],
  [/the active link points .* correcting it/, "corrected the active link"],
  [/the state file .*: correcting it/i, "corrected the state file"],
  [/was never fully verified: going back/, "switched back from an unverified release"],
  [/serves, .*: verifying it|so \w+ is verified/, "verified the serving color before marking it"],
  [/is marked as active, but .* was verified: marking/, "marked a verified color as active"],
  [/starting a new rollback from/, "did not finish an old rollback"],
  [/is healthy: switching nginx to it/, "switched traffic to the only healthy color"],
  [/does not run: starting it/, "started nginx or auth"],
  [
    /✓ stop (blue|green)[\s\S]*✓ clear the record of the interrupted run/,
    "stopped a color that was left running",
  ],
];

/** Ends the daemon as a shutdown does, and has set-up start it again. */
async function restartDaemon(): Promise<void> {
  const pid = Number(await readFile("/var/run/docker.pid", "utf8"));
  process.kill(pid, "SIGTERM");
  await waitFor("the daemon has ended", async () => (await quiet`kill -0 ${pid}`).exitCode !== 0, 60);
  await once(spawn("sh", [join(ROOT, "scripts/setup.sh")], { stdio: "ignore" }), "close");
}

async function mayRestartDaemon(stack: Scratch): Promise<boolean> {
  const { stdout } = await stack.docker("ps", "--format", "{{.Names}}");
  return stdout
    .trim()
    .split("\n")
    .every((name) => name.startsWith(stack.project));
}

/** Writes another time into the recovery record, as a clock that jumped would have. */
async function jump(stack: Scratch, days: number): Promise<void> {
  const file = join(stack.stateDir, "lock");
  const text = await readFile(file, "utf8").catch(() => "");
  if (text.trim() === "") return;
  const since = new Date(Date.now() + days * 86_400_000).toISOString();
  await writeFile(file, text.replaceAll(/"(since|updated)":"[^"]+"/g, `"$1":"${since}"`));
}

/** Does to a run what is to happen to it at that moment. */
async function strike(stack: Scratch, run: Run, fault: Fault): Promise<void> {
  if (fault.startsWith("SIG")) run.kill(fault as NodeJS.Signals);
  if (fault.startsWith("unhealthy build") || fault.startsWith("clock changed")) run.kill("SIGKILL");
  if (fault === "nginx stopped") await stack.docker("stop", "--time", "1", stack.nginxContainer);
  if (fault === "Docker daemon restarted") await restartDaemon();
}

async function disagreement(stack: Scratch): Promise<string | undefined> {
  const { status, color } = await stack.get();
  const link = await readlink(join(stack.folder, "nginx/active-upstream.conf"));
  const seen = { status, running: await stack.running(), marked: (await stack.readStateFile()).trim(), link };
  const wanted = { status: 200, running: [color], marked: color, link: `${color}-upstream.conf` };
  return JSON.stringify(seen) === JSON.stringify(wanted) ? undefined : JSON.stringify(seen);
}

/** Runs under load, most of them killed at a random moment; tells what came of it. */
export async function kills({ runs, seed, daemon, say }: Storm): Promise<Report> {
  const roll = dice(seed);
  const report: Report = {
    runs,
    seed,
    daemon,
    faults: {},
    steps: {},
    requests: 0,
    failed: {},
    lostInOutages: 0,
    outages: 0,
    plainRuns: 0,
    repairs: {},
    hands: [],
    unverified: [],
  };
  const stack = await createScratch("chaos");
  const vault = dirname(dirname(stack.stateFile));
  const disk = join(stack.folder, "vault-disk");
  Object.assign(stack.env, { API_IDLE_SECONDS: "2", VERIFY_SECONDS: "1", DRAIN_SECONDS: "20" });
  stack.env.HEALTH_RETRIES = "60"; // how fast this machine boots a container is not what is looked at
  const verified = new Set<string>();
  let load: Load | undefined;
  let nginxRestarted = false; // since nginx last kept a color for sessions that it cannot rule out
  try {
    // Disks of their own, so that they can be full.
    for (const path of [disk, stack.stateDir]) {
      await mkdir(path, { mode: 0o700 });
      await quiet`mount -t tmpfs -o size=8m,mode=700 tmpfs ${path}`;
    }
    await writeFile(join(disk, "note.md"), "of its owner\n");
    await mountVault();
    for (let i = 0; i < 2; i++) await plain("deploy");
    const since = performance.now();
    await plain("deploy");
    const typical = performance.now() - since;
    load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, {
      clients: { post: 8, get: 8, slow: 1, stream: 1 },
      thinkMs: 50,
      patientMs: [0, 0],
    });
    const outages: [number, number][] = [];

    for (let i = 1; i <= runs; i++) {
      const picked: Verb = roll() < 0.6 ? "deploy" : "rollback";
      const fault = pickFault(roll(), daemon && (await mayRestartDaemon(stack)));
      const sick = fault.startsWith("unhealthy build");
      const verb = sick ? "deploy" : picked;
      const moment = roll() * 1.1 * typical;
      const context = verb === "deploy" && (roll() < 0.5 || sick) ? await stack.apiVersion(`${i}.0.0`) : {};
      const chance = roll();
      count(report.faults, fault);

      if (fault === "vault full") await fill(disk);
      if (fault === "state folder full") await fill(stack.stateDir);
      // Half of the times before the run, else in its midst.
      const gone = fault.startsWith("vault unmounted");
      if (gone && chance < 0.5) await quiet`umount -l ${vault}`;
      const below = await readdir(vault);
      const run = startRun(stack, verb, {
        ...context,
        ...(sick ? SICK : {}),
        ...(i % 2 === 0 ? CANARY : {}),
      });
      if (sick) {
        await run.waitForStep("switch nginx").catch(() => undefined);
        await Promise.race([sleep(chance * 3000), run.ended]);
      } else await Promise.race([sleep(moment), run.ended]);
      if (gone && chance >= 0.5) await quiet`umount -l ${vault}`;
      const [struck, at] = [load.now(), run.steps.at(-1)]; // what is done after the strike may be its taking back
      await strike(stack, run, fault);
      const back = OUTAGES.includes(fault) ? firstAnswer(load) : undefined;
      if (back) nginxRestarted = true;
      const { exitCode, signal, output } = await run.ended;
      await learn(run.steps);
      for (const path of [disk, stack.stateDir]) await rm(join(path, FILLER), { force: true });
      if (gone && chance < 0.5) await expectUntouched(below, exitCode, output);
      if (gone) await mountVault();
      if (fault.startsWith("clock changed")) await jump(stack, chance < 0.5 ? 30 : -30);
      const last = at?.replace(/\b(blue|green)\b/, "a color").replace(stack.project, "loop") ?? "no step yet";
      if (signal || exitCode !== 0) count(report.steps, `${verb}: ${last}`);
      noteRepairs(output);
      if (back) {
        // It comes back by itself, or by the next run.
        for (let tries = 0; tries < 3 && !(await answers()); tries++) await plain("deploy");
        outages.push([struck - 100, await back]);
      }
      say(`${i} of ${runs}: ${verb}, ${fault} after ${at ?? "no step yet"}: ${signal ?? exitCode}`);
      if (i % PLAIN_EVERY === 0 || i === runs) await plain(roll() < 0.5 ? "deploy" : "rollback");
    }
    const shots = await load.stop();
    report.requests = shots.length;
    report.outages = outages.length;
    for (const { kind, failure, at, ms } of shots) {
      if (!failure) continue;
      if (outages.some(([from, to]) => at + ms >= from && at <= to)) report.lostInOutages++;
      else count(report.failed, `${kind} ${failure}`);
    }
    return report;
  } finally {
    await load?.stop();
    for (const path of [vault, disk, stack.stateDir]) await quiet`umount -l ${path}`;
    await mkdir(vault, { recursive: true });
    await stack.remove();
  }

  async function mountVault(): Promise<void> {
    await quiet`mount --bind ${disk} ${vault}`;
  }

  async function fill(path: string): Promise<void> {
    await writeFile(join(path, FILLER), Buffer.alloc(16 * 1024 * 1024)).catch(() => undefined);
  }

  /** Remembers the builds that a run has verified in full. */
  async function learn(steps: readonly string[]): Promise<void> {
    for (const step of steps) {
      const [, color] = step.match(/^verify (blue|green) through nginx/) ?? [];
      if (color) verified.add(await stack.field(`${stack.project}-api-${color}`, "{{.Image}}"));
    }
  }

  /** A run that finds the vault empty must say so, and must not write into what it is mounted on. */
  async function expectUntouched(below: string[], exitCode: number | null, output: string): Promise<void> {
    const left = await readdir(vault);
    if (
      exitCode === 1 &&
      output.includes("is empty, but earlier releases used it") &&
      left.join() === below.join()
    )
      return;
    report.hands.push(`an unmounted vault was used: exit code ${exitCode}, in it ${left.join()}\n${output}`);
  }

  /** When nginx answers well again, by the load's clock: from then on nothing may be lost. */
  async function firstAnswer(since: Load): Promise<number> {
    for (let i = 0; i < 1200; i++) {
      if ((await stack.get().catch(() => undefined))?.status === 200) break;
      await sleep(100);
    }
    return since.now();
  }

  async function answers(): Promise<boolean> {
    for (let i = 0; i < 20; i++) {
      if ((await stack.get().catch(() => undefined))?.status === 200) return true;
      await sleep(500);
    }
    return false;
  }

  function noteRepairs(output: string): void {
    for (const [shape, name] of REPAIRS) if (shape.test(output)) count(report.repairs, name);
  }

  /** A run cannot rule out sessions from before a restart of nginx, so it keeps the color they may belong to. */
  async function endUnknownSessions(): Promise<void> {
    nginxRestarted = false;
    const { exitCode, stdall } = await stack.endSessions(["--now"]);
    if (exitCode !== 0) report.hands.push(`end-sessions: exit code ${exitCode}\n${stdall}`);
  }

  /** A run that nothing happens to. What it does not put right needs a hand, and is written down. */
  async function plain(verb: Verb): Promise<void> {
    const run = startRun(stack, verb);
    const { exitCode, output } = await run.ended;
    report.plainRuns++;
    await learn(run.steps);
    const active = (await stack.readStateFile()).trim();
    if (!verified.has(await stack.field(`${stack.project}-api-${active}`, "{{.Image}}"))) {
      report.unverified.push(`${active} after a ${verb}:\n${output}`);
      say(`an unverified build was kept: ${active}\n${output}`);
    }
    noteRepairs(output);
    if (nginxRestarted && output.includes("still serves its sessions")) await endUnknownSessions();
    const wrong = exitCode === 0 ? await disagreement(stack) : `exit code ${exitCode}`;
    if (!wrong) return;
    report.hands.push(`${verb}: ${wrong}\n${output}`);
    say(`needs a manual fix: ${wrong}\n${output}`);
    const mended = await stack.deploy(["--keep", "serving"]);
    await learn([...mended.stdout.matchAll(/✓ (.+) \(/g)].map(([, step]) => step ?? ""));
  }
}
