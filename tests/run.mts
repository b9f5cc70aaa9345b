/**
 * Runs the test files: `node --import tsx tests/run.mts [--unit | --soak] [pattern ...]`. TEST_JOBS files run at a time, each for
 * TEST_FILE_SECONDS at most. Start it with node: on Ctrl-C, the `tsx` command kills a process that does not end at once.
 */
import { randomBytes } from "node:crypto";
import { availableParallelism, constants } from "node:os";
import { dirname } from "node:path";
import { tempFolder } from "../bench/testbed/temp.ts";
import { bundleFolder, bundleTests } from "./bundles.ts";
import { choose, listTests } from "./choose.ts";
import { makeFixtures } from "./fixtures.ts";
import { endProcesses, removeFolders, removeFromDocker, removeSwarms } from "./leftovers.ts";
import { runTests, summary } from "./runner.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

function reject(why: string): number {
  console.error(why);
  return 2;
}

/** Removes what the tests left, and reports what a test should have removed itself. */
async function cleanUp(run: string): Promise<void> {
  await removeSwarms(run);
  await endProcesses(run);
  const left = await removeFromDocker(run);
  if (left.length > 0) console.log(`Left by the tests, and removed: ${left.join("; ")}`);
  const remaining = await removeFolders(run);
  if (remaining.length > 0) console.log(`Cannot be removed: ${remaining.join(", ")}`);
}

async function main(directory: string, args: string[]): Promise<number> {
  const { TEST_JOBS, TEST_FILE_SECONDS, CI } = process.env;
  // More jobs than cores, because tests mostly wait.
  const [jobs, limitSeconds] = [
    Number(TEST_JOBS || availableParallelism() + 3),
    Number(TEST_FILE_SECONDS || 900),
  ];
  if (!(jobs >= 1 && limitSeconds > 0)) return reject("TEST_JOBS and TEST_FILE_SECONDS are numbers above 0.");
  const files = choose(args, listTests(directory));
  if (typeof files === "string") return reject(files);

  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {}); // the terminal may be closed
  const interruption = new AbortController();
  for (const name of SIGNALS) process.on(name, () => interruption.abort(name));
  const { signal } = interruption;
  const run = randomBytes(3).toString("hex");
  const checkout = dirname(directory);
  const top = await bundleFolder(checkout, "fixtures", run);
  // Unit tests use none, and would wait for them longer than for most files.
  const needFixtures = files.some(({ kind }) => kind !== "unit");
  const bundled = await bundleTests(checkout, files, top);
  const how = {
    directory,
    run,
    worker: bundled.worker,
    fixtures: needFixtures ? await makeFixtures(checkout, top) : {},
    output: await tempFolder("output", run),
    jobs,
    limitSeconds,
    progressSeconds: process.stdout.isTTY ? 0 : 60, // without output, CI could look hung
    strict: Boolean(CI),
    interrupt: signal,
    say: console.log,
  };
  const results = await runTests(bundled.files, how).finally(() => cleanUp(run));
  const missing = files.length - results.length;
  if (signal.aborted) console.log(`Interrupted by ${signal.reason}; not started: ${missing}`);
  for (const line of summary(results)) console.log(line);
  if (signal.aborted) return 128 + constants.signals[signal.reason as (typeof SIGNALS)[number]];
  return results.some(({ failed }) => failed > 0) ? 1 : 0;
}

process.exitCode = await main(import.meta.dirname, process.argv.slice(2));
