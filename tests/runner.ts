import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { KINDS, type TestFile } from "./choose.ts";

/** How many files of a kind run at a time, if not as many as TEST_JOBS: under load, a busy machine loses requests by itself. */
const MOST_JOBS: Record<string, number> = { load: 2, soak: 1 };

/**
 * The most seconds for a file of a kind. A promise that never settles ends a process of its own at once, but a worker, which
 * waits for its next file, only with this limit.
 */
const MOST_SECONDS: Record<string, number> = { unit: 60 };

interface Result {
  name: string;
  passed: number;
  failed: number;
  skipped: number;
  seconds: number;
}

interface How {
  /** The parent of the folders with test files. */
  directory: string;
  /** The id of the test run, passed to its files as LOOP_TEST_RUN. */
  run: string;
  /** The bundle of worker.mts, which runs unit tests. */
  worker: string;
  /** What `makeFixtures` returned, for the environment of its files; empty for unit tests alone. */
  fixtures: Record<string, string>;
  /** The folder for the output of running files. */
  output: string;
  jobs: number;
  limitSeconds: number;
  /** The seconds between reports of what is running; 0 for none. */
  progressSeconds: number;
  /** Skipped tests count as failures. */
  strict: boolean;
  interrupt: AbortSignal;
  say(line: string): void;
}

/** Reads uvu's totals. Uses the last ones, because a file may print the output of another. */
function readTotals(output: string): { total: number; passed: number; skipped: number } | undefined {
  const format = /^ {2}Total: +(\d+)\n {2}Passed: +(\d+)\n {2}Skipped: +(\d+)$/gm;
  const last = [...stripVTControlCharacters(output).matchAll(format)].at(-1);
  if (!last) return undefined;
  const [, total = 0, passed = 0, skipped = 0] = last.map(Number);
  return { total, passed, skipped };
}

/**
 * Counts a file's tests. `end` describes how its process ended; "" means normally. Any problem counts as at least one failure:
 * uvu exits with 0 if no test ran, and prints good totals in a file that crashes afterward.
 */
export function judge(output: string, end: string, strict: boolean) {
  const totals = readTotals(output);
  const { total, passed, skipped } = totals ?? { total: 0, passed: 0, skipped: 0 };
  const known = end === "exit code 1" && passed < total; // how uvu reports failed tests
  const wrong = [
    totals && total === 0 ? "no test ran" : "",
    known ? "" : end,
    strict && skipped > 0 ? "a skip is a failure on CI" : "",
  ].filter(Boolean);
  const failed = Math.max(total - passed, wrong.length > 0 || !totals ? 1 : 0);
  const count = failed > 0 ? `${passed} of ${total} passed` : `${total} test${total === 1 ? "" : "s"}`;
  const summaryParts = [
    totals ? count : "no totals",
    ...(skipped > 0 ? [`${skipped} SKIPPED`] : []),
    ...wrong,
  ];
  return { passed, failed, skipped, summaryParts };
}

/** Sends SIGTERM to a process group, and SIGKILL to what is left of it after `seconds`. */
export async function endGroup(pid: number, seconds: number): Promise<void> {
  const send = (signal: NodeJS.Signals | 0): boolean => {
    try {
      return process.kill(-pid, signal);
    } catch {
      return false; // the group is empty
    }
  };
  send("SIGTERM");
  for (const until = performance.now() + seconds * 1000; performance.now() < until && send(0); )
    await sleep(20);
  send("SIGKILL");
}

/** A process that runs test files, with its output in `log`. `exit` resolves with how it ended; "" means normally. */
interface TestProcess {
  child: ChildProcess;
  log: string;
  exit: Promise<string>;
}

/** Starts a process that runs a test file; without one, a worker, which waits for files. `job` tells apart those that run at the same time. */
function startProcess(name: string, path: string | undefined, job: number, how: How): TestProcess {
  // Not a pipe: a process that a test left running would keep it open, and this run would wait.
  const log = join(how.output, name.replace("/", "-"));
  const descriptor = openSync(log, "a");
  const child = spawn(process.execPath, ["--enable-source-maps", path ?? how.worker], {
    cwd: dirname(how.directory),
    env: { ...process.env, ...how.fixtures, LOOP_TEST_RUN: how.run, LOOP_TEST_PORTS: `${process.pid + job}` },
    detached: true,
    stdio: ["ignore", descriptor, descriptor, ...(path ? [] : ["ipc" as const])],
  });
  closeSync(descriptor);
  const exit = new Promise<string>((resolve) => {
    child.once("error", ({ message }) => resolve(message));
    child.once("exit", (code, signal) =>
      resolve(signal ? `killed by ${signal}` : code ? `exit code ${code}` : ""),
    );
  });
  return { child, log, exit };
}

/** Lets a worker run a file. Resolves with how it ended, as the exit of a process would. */
const runInWorker = ({ child, exit }: TestProcess, path: string): Promise<string> => {
  child.send(path);
  const done = once(child, "message").then(([code]) => (code ? `exit code ${code}` : ""));
  return Promise.race([done, exit.then((end) => end || "the process ended early")]);
};

const isOver = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode !== null || signalCode !== null;

/** Waits until a process is done, `limitSeconds` at most. Ends what is left of it, unless it is a worker that waits for a file. */
async function waitFor(
  { child }: TestProcess,
  done: Promise<string>,
  interrupted: Promise<string>,
  { limitSeconds, interrupt }: How,
): Promise<string> {
  const late = `not done within ${limitSeconds} s`;
  const end = await Promise.race([done, sleep(limitSeconds * 1000, late, { ref: false }), interrupted]);
  const waits = child.connected && !isOver(child) && /^(exit code 1)?$/.test(end);
  if (child.pid && !waits) await endGroup(child.pid, interrupt.aborted ? 10 : end === late ? 5 : 0);
  return end;
}

/** Says how a file ended, and what it printed if it failed. */
function report(name: string, output: string, end: string, since: number, how: How): Result {
  const seconds = (performance.now() - since) / 1000;
  const { summaryParts, ...counts } = judge(output, end, how.strict);
  how.say(`${counts.failed > 0 ? "✗" : "✓"} ${name} (${summaryParts.join(", ")}, ${seconds.toFixed(1)} s)`);
  if (counts.failed > 0 && !how.interrupt.aborted) {
    const rule = (title: string) => `──── ${title} `.padEnd(80, "─");
    how.say(`${rule(`output of ${name}`)}\n${output.trimEnd()}\n${rule(`end of ${name}`)}`);
  }
  return { name, ...counts, seconds };
}

/** Runs a file in this worker, or in a process of its own. */
async function runFile(
  { name, path }: TestFile,
  worker: TestProcess | undefined,
  job: number,
  interrupted: Promise<string>,
  how: How,
): Promise<Result> {
  const since = performance.now();
  const own = worker ?? startProcess(name, path, job, how);
  const { size: before } = statSync(own.log);
  const done = worker ? runInWorker(worker, path) : own.exit;
  const end = await waitFor(own, done, interrupted, how);
  return report(name, readFileSync(own.log).subarray(before).toString(), end, since, how);
}

/** Waits until nothing is left to do in a worker. Returns a failure if it crashes: a test may go wrong after its file's totals. */
async function endWorker(worker: TestProcess, interrupted: Promise<string>, how: How): Promise<Result[]> {
  const since = performance.now();
  if (worker.child.connected) worker.child.disconnect();
  const end = await waitFor(worker, worker.exit, interrupted, how);
  if (!end) return [];
  const output = readFileSync(worker.log, "utf8");
  const afterTotals = output.slice(output.lastIndexOf("  Duration:"));
  return [report("unit, after the tests", afterTotals, end, since, how)];
}

/** Runs bundles of test files kind by kind and reports how each ended. Starts no more files once it is interrupted. */
export async function runTests(files: TestFile[], all: How): Promise<Result[]> {
  const results: Result[] = [];
  const interrupted = once(all.interrupt, "abort").then(() => `interrupted by ${all.interrupt.reason}`);
  const running = new Map<string, number>();
  const reportRunning = (): void => {
    const names = [...running].map(
      ([name, since]) => `${name} ${Math.round((performance.now() - since) / 1000)} s`,
    );
    all.say(`running: ${names.join(", ")}`);
  };
  const reporting =
    all.progressSeconds > 0 ? setInterval(reportRunning, all.progressSeconds * 1000) : undefined;
  for (const kind of KINDS) {
    const how = { ...all, limitSeconds: Math.min(all.limitSeconds, MOST_SECONDS[kind] ?? all.limitSeconds) };
    const queue = files.filter((file) => file.kind === kind).values(); // shared: each worker takes the next file
    const work = async (_: unknown, job: number): Promise<void> => {
      let worker: TestProcess | undefined;
      const end = async () => worker && results.push(...(await endWorker(worker, interrupted, how)));
      for (const file of queue) {
        if (how.interrupt.aborted) break;
        if (kind === "unit" && (!worker || isOver(worker.child))) {
          await end(); // if it crashed after the file before this one
          worker = startProcess(`worker-${job}`, undefined, job, how);
        }
        running.set(file.name, performance.now());
        results.push(await runFile(file, worker, job, interrupted, how));
        running.delete(file.name);
        if (worker && isOver(worker.child)) worker = undefined; // the file is to blame, and its line says so
      }
      await end();
    };
    const jobs = Math.min(how.jobs, MOST_JOBS[kind] ?? how.jobs);
    await Promise.all(Array.from({ length: jobs }, work));
  }
  clearInterval(reporting);
  return results;
}

/** The last lines of the output: the slowest files and the counts, which CI reads. */
export function summary(results: Result[]): string[] {
  const slowest = results.toSorted((a, b) => b.seconds - a.seconds).slice(0, 3);
  const sum = (what: "passed" | "failed" | "skipped") =>
    results.reduce((total, result) => total + result[what], 0);
  const skipped = sum("skipped");
  return [
    `Slowest: ${slowest.map(({ name, seconds }) => `${name} ${seconds.toFixed(1)} s`).join(", ")}`,
    `${sum("passed")} passed, ${sum("failed")} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`,
  ];
}
