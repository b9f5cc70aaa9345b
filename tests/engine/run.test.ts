import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { ROOT } from "../../lib/settings.ts";
import { bundleTests } from "../bundles.ts";
import { choose, knownSeconds, listTests } from "../choose.ts";
import { endGroup, judge, runTests, summary } from "../runner.ts";

/** Imports and helpers for the test files below, which run in their checkout. */
const HEAD = `
import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
const write = (file: string, text: unknown = "") => writeFileSync(file, String(text));
const waitForFile = async (file: string) => {
  for (let i = 0; i < 1000 && !existsSync(file); i++) await sleep(10);
  assert.ok(existsSync(file));
};
`;
const ONE = 'test("one", () => {});';

/** Runs until SIGTERM and needs some time to clean up. */
const HANGS = `setInterval(() => {}, 1000);
process.on("SIGTERM", () => setTimeout(() => { write("cleaned-up", "yes"); process.exit(); }, 200));
`;

/** A test that fails if another one with the same file runs at the same time. */
const alone = (file: string) => `test("alone", async () => {
  assert.not(existsSync("${file}"));
  write("${file}");
  await sleep(100);
  rmSync("${file}");
});`;

/** Creates a checkout with the runner, these test files and a fake docker with one container of the test run. */
async function checkout(files: Record<string, string>): Promise<string> {
  const top = await tempFolder("run");
  const runner = [
    "run.mts",
    "bundles.ts",
    "fixtures.ts",
    "choose.ts",
    "leftovers.ts",
    "runner.ts",
    "worker.mts",
  ].map((file) => join("tests", file));
  const shared = ["temp.ts", "v8-options.ts"].map((file) => join("bench/testbed", file));
  for (const file of [...runner, ...shared]) await cp(join(ROOT, file), join(top, file));
  await symlink(join(ROOT, "node_modules"), join(top, "node_modules"));
  await writeFile(join(top, "package.json"), '{ "type": "module" }');
  await mkdir(join(top, "scripts"));
  await writeFile(join(top, "scripts/x.mts"), 'console.log("x" as string);\n');
  for (const part of ["examples/loop-api", "examples/loop-auth", "tests/fastapi"])
    await cp(join(ROOT, part), join(top, part), { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    const path = join(top, "tests", `${name}.test.ts`);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${HEAD}${text}\ntest.run();\n`);
  }
  const docker = `#!/bin/sh
echo "$@" >>docker-calls
[ "$1" = ps ] && [ -f id ] && echo "c1 loop-test-$(cat id)-x-nginx nginx:1.30"
exit 0
`;
  await mkdir(join(top, "bin"));
  await writeFile(join(top, "bin/docker"), docker);
  await chmod(join(top, "bin/docker"), 0o755);
  return top;
}

/** Starts the runner in a checkout. */
function start(top: string, args: string[] = [], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, ["--import", "tsx", "tests/run.mts", ...args], {
    cwd: top,
    env: { ...process.env, PATH: `${top}/bin:${process.env.PATH}`, CI: "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => {
      output += chunk;
    });
  return { child, ended: once(child, "close").then(([code]) => ({ code, output })) };
}

/** The line about a file in the output, without its duration. */
const lineOf = (output: string, name: string): string =>
  output.match(new RegExp(`^. ${name} \\(.*(?=, \\d+\\.\\d s\\)$)`, "m"))?.[0] ?? `no line in:\n${output}`;

const lastLine = (output: string): string => output.trimEnd().split("\n").at(-1) ?? "";

/** Is this process running, and not a zombie? */
const isAlive = async (pid: number): Promise<boolean> =>
  /\) [^ZX]/.test(await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""));

async function within(seconds: number, condition: () => Promise<boolean>): Promise<boolean> {
  for (const until = Date.now() + seconds * 1000; Date.now() < until; await sleep(10))
    if (await condition()) return true;
  return false;
}

test("V8 accepts the code cache of the libraries that the scripts load", async () => {
  const code = `
    const { readdirSync, readFileSync } = require("node:fs");
    const { Script } = require("node:vm");
    process.chdir(process.argv[1]);
    const accepted = readdirSync(".").filter((name) => name.endsWith(".cjs")).map((filename) => {
      const cachedData = readFileSync(filename + ".cache");
      return [filename, !new Script(readFileSync(filename, "utf8"), { filename, cachedData }).cachedDataRejected];
    });
    console.log(JSON.stringify(Object.fromEntries(accepted)));`;
  const [node = "", ...args] = scriptCommand("status");
  const script = args.pop() ?? "";
  const { stdout } = await promisify(execFile)(node, [...args, "-e", code, dirname(script)]);
  assert.equal(JSON.parse(stdout), { "undici.cjs": true, "zod.cjs": true, "zx-core.cjs": true });
});

const file = (name: string) => ({ kind: name.split("/")[0] ?? "", name, path: name });
const FILES = ["unit/color", "engine/rollback", "load/switch", "soak/kill", "soak/rollback-week"].map(file);

function chosen(...args: string[]): string[] {
  const files = choose(args, FILES);
  assert.is.not(typeof files, "string", String(files));
  return (files as typeof FILES).map(({ name }) => name);
}

function errorOf(...args: string[]): string {
  const why = choose(args, FILES);
  assert.type(why, "string");
  return String(why);
}

test("the command line selects test files by kind and by pattern", () => {
  assert.equal(chosen(), ["unit/color", "engine/rollback", "load/switch"]);
  assert.equal(chosen("--unit"), ["unit/color"]);
  assert.equal(chosen("--soak"), ["soak/kill", "soak/rollback-week"]);
  assert.equal(chosen("rollback"), ["engine/rollback"]);
  assert.equal(chosen("roll", "engine/", "color.test"), ["unit/color", "engine/rollback"]);
  assert.equal(chosen("tests/load/switch.test.ts"), ["load/switch"]);
  assert.equal(chosen("--soak", "rollback"), ["soak/rollback-week"]);
});

test("a wrong command line is rejected with instructions", () => {
  assert.match(errorOf("--watch"), /--watch\nUsage:/);
  assert.match(errorOf("--unit", "--soak"), "Usage:");
  assert.match(errorOf("kill"), "npm run soak -- kill");
  assert.match(errorOf("rollback", "nothing"), /"nothing".*\n {2}unit\/color\n {2}engine\/rollback\n/);
  assert.match(errorOf("--unit", "rollback"), 'unit has "rollback"');
  assert.match(errorOf("--soak", "switch"), 'soak has "switch"');
  assert.match(String(choose([], [])), "no test files");
});

test("a file's tests are counted, and any problem counts as at least one failure", () => {
  const totals = (total: number, passed: number, skipped = 0) =>
    `• \n  Total:     ${total}\n\x1b[32m  Passed:    ${passed}\x1b[39m\n  Skipped:   ${skipped}\n  Duration:  1.00ms\n`;
  const cases: [output: string, end: string, strict: boolean, counts: number[], summary: string][] = [
    [totals(12, 12), "", true, [12, 0, 0], "12 tests"],
    [totals(1, 1), "", false, [1, 0, 0], "1 test"],
    [totals(12, 9), "exit code 1", false, [9, 3, 0], "9 of 12 passed"],
    [totals(12, 11), "", false, [11, 1, 0], "11 of 12 passed"],
    [totals(12, 12), "exit code 1", false, [12, 1, 0], "12 of 12 passed, exit code 1"],
    [totals(12, 11), "killed by SIGKILL", false, [11, 1, 0], "11 of 12 passed, killed by SIGKILL"],
    [totals(0, 0), "", false, [0, 1, 0], "0 of 0 passed, no test ran"],
    ["  Total:     12\n", "", false, [0, 1, 0], "no totals"],
    ["", "exit code 7", false, [0, 1, 0], "no totals, exit code 7"],
    [totals(3, 3, 2), "", false, [3, 0, 2], "3 tests, 2 SKIPPED"],
    [totals(3, 3, 2), "", true, [3, 1, 2], "3 of 3 passed, 2 SKIPPED, a skip is a failure on CI"],
    [totals(9, 1) + totals(4, 4), "", false, [4, 0, 0], "4 tests"],
  ];
  for (const [output, end, strict, counts, text] of cases) {
    const { passed, failed, skipped, summaryParts } = judge(output, end, strict);
    assert.equal(
      [[passed, failed, skipped], summaryParts.join(", ")],
      [counts, text],
      JSON.stringify(output),
    );
  }
});

test("the last lines name the slowest files and count the tests", () => {
  const result = (name: string, seconds: number, skipped = 0) => ({
    name,
    seconds,
    passed: 2,
    failed: 1,
    skipped,
  });
  const results = [result("a", 1), result("b", 30.04), result("c", 7), result("d", 3)];
  assert.equal(summary(results), ["Slowest: b 30.0 s, c 7.0 s, d 3.0 s", "8 passed, 4 failed"]);
  assert.is(summary([...results, result("e", 1, 2)])[1], "10 passed, 5 failed, 2 skipped");
});

test("a process group is ended with all its processes, even those that ignore SIGTERM", async () => {
  const groupOf = async (script: string): Promise<number[]> => {
    const shell = spawn("sh", ["-c", script], { detached: true, stdio: ["ignore", "pipe", "ignore"] });
    const [pid] = await once(shell.stdout, "data");
    return [shell.pid ?? 0, Number(pid)];
  };
  const ignoring = await groupOf("trap '' TERM; sleep 60 & echo $!; wait");
  const since = performance.now();
  await endGroup(ignoring[0] ?? 0, 0.3);
  assert.ok(performance.now() - since >= 300, "it must get its time to end");
  const quick = await groupOf("echo $$; exec sleep 60");
  await endGroup(quick[0] ?? 0, 60);
  assert.ok(performance.now() - since < 30_000, "it waited although the group had ended");
  for (const pid of [...ignoring, ...quick])
    assert.ok(await within(2, async () => !(await isAlive(pid))), `${pid} is still running`);
});

test("every test file is in a folder that the runner reads", async () => {
  const tests = join(ROOT, "tests");
  const files = (await readdir(tests, { recursive: true })).filter((name) => name.endsWith(".test.ts"));
  assert.equal(
    listTests(tests)
      .map(({ name }) => `${name}.test.ts`)
      .sort(),
    files.sort(),
  );
  for (const name of Object.keys(knownSeconds(tests))) assert.ok(files.includes(`${name}.test.ts`), name);
});

test("files that take longest start first, a file that hangs is ended, and running files are reported", async () => {
  const top = await checkout({
    "engine/short": ONE,
    "engine/hangs": `${HANGS} console.log("before it hangs"); ${ONE.repeat(2)}\n\n`,
    "load/lines": "\n\n\n",
    "load/quick": "\n",
    "load/slow": "",
    "load/few-lines": "",
  });
  await writeFile(join(top, "tests/engine/no-test.ts"), "");
  await writeFile(join(top, "tests/seconds.json"), '{ "load/quick": 2, "load/slow": 10 }');
  const files = listTests(join(top, "tests"));
  assert.equal(
    files.map(({ name }) => name),
    ["engine/hangs", "engine/short", "load/lines", "load/few-lines", "load/slow", "load/quick"],
  );
  const said: string[] = [];
  const hanging = await bundleTests(top, files.slice(0, 1), top);
  const results = await runTests(hanging.files, {
    worker: hanging.worker,
    directory: join(top, "tests"),
    run: "test",
    fixtures: {},
    output: top,
    jobs: 2,
    limitSeconds: 4,
    progressSeconds: 0.2,
    strict: false,
    interrupt: new AbortController().signal,
    say: (line) => said.push(line),
  });
  assert.is(await readFile(join(top, "cleaned-up"), "utf8"), "yes");
  assert.match(said[0] ?? "", /^running: engine\/hangs \d s$/);
  assert.match(
    said.join("\n"),
    /^✗ engine\/hangs \(.*not done within 4 s, \d\.\d s\)\n─+ output.*\nbefore it/m,
  );
  assert.equal(
    results.map(({ failed }) => failed),
    [1],
  );
  await rm(top, { recursive: true });
});

test("a whole run reports how each file ended, keeps the order of kinds, and counts the tests", async () => {
  const meet = (other: string, own: string) => `test("meets", async () => {
    write("${own}");
    await waitForFile("${other}");
    await sleep(50);
    write("${own}-done");
  });`;
  const top = await checkout({
    "unit/good": `${ONE} test("two", () => {});`,
    "unit/red": `${ONE} test("broken", () => { console.error("as it was said"); assert.is(1, 2); });`,
    "engine/crash": `${ONE} setTimeout(() => { throw new Error("after the totals"); }, 100);`,
    "unit/dies": 'console.log("its last words"); process.kill(process.pid, "SIGKILL");',
    "unit/skips": `${ONE} test.skip("two", () => {});`,
    "engine/a": meet("b", "a"),
    "engine/c": `test("fixtures", () => {
      const { LOOP_TEST_SCRIPTS, LOOP_TEST_API, LOOP_TEST_AUTH } = process.env;
      const files = [LOOP_TEST_SCRIPTS + "/x.mjs", LOOP_TEST_API + "/fastapi/responses.py", LOOP_TEST_AUTH + "/Dockerfile"];
      for (const file of files) assert.ok(existsSync(file), file);
    });`,
    "engine/b": meet("a", "b"),
    "load/x": `${meet("y", "x")} test("last", () => assert.ok(existsSync("a-done") && existsSync("b-done")));`,
    "load/y": meet("x", "y"),
    "load/z": 'test("third", () => assert.ok(existsSync("x-done") || existsSync("y-done")));',
    "soak/m": alone("m"),
    "soak/n": alone("m"),
  });
  const [{ code, output }, soak, wrong] = await Promise.all([
    start(top, [], { TEST_JOBS: "5", CI: "true" }).ended,
    start(top, ["--soak"], { PATH: join(top, "none") }).ended, // without a docker
    start(top, ["nothing"]).ended,
  ]);
  const names = ["unit/good", "unit/red", "engine/crash", "unit/dies", "unit/skips"];
  const lines = names.map((name) => lineOf(output, name));
  assert.equal(lines, [
    "✓ unit/good (2 tests",
    "✗ unit/red (1 of 2 passed",
    "✗ engine/crash (1 of 1 passed, exit code 1",
    "✗ unit/dies (no totals, killed by SIGKILL",
    "✗ unit/skips (1 of 1 passed, 1 SKIPPED, a skip is a failure on CI",
  ]);
  assert.equal(
    ["engine/a", "engine/b", "load/x", "load/y", "load/z"].map((name) => lineOf(output, name)),
    ["✓ engine/a (1 test", "✓ engine/b (1 test", "✓ load/x (2 tests", "✓ load/y (1 test", "✓ load/z (1 test"],
    output,
  );
  assert.not.match(output, "soak");
  assert.match(
    output,
    /^─+ output of unit\/red ─+\n• as it was said\n[\s\S]*FAIL[\s\S]*^─+ end of unit\/red ─+$/m,
  );
  for (const text of ["after the totals", "its last words"]) assert.match(output, text);
  assert.match(output, /^Slowest: (load|engine|unit)\/\w+ \d+\.\d s, \S+ \d+\.\d s, \S+ \d+\.\d s$/m);
  assert.equal([code, lastLine(output)], [1, "12 passed, 4 failed, 1 skipped"]);

  assert.equal([soak.code, lastLine(soak.output)], [0, "2 passed, 0 failed"], soak.output);
  assert.not.match(soak.output, "Left by");
  assert.is(wrong.code, 2);
  assert.match(wrong.output, "unit/good\n");
  await rm(top, { recursive: true });
});

test("unit tests alone get no fixtures, and their bundles still find the packages", async () => {
  const top = await checkout({
    "unit/alone": `import { version } from "esbuild";
    test("no fixtures", () => assert.equal([typeof version, process.env.LOOP_TEST_SCRIPTS], ["string", ""]));`,
  });
  const { code, output } = await start(top, ["--unit"], { LOOP_TEST_SCRIPTS: "" }).ended;
  assert.equal([code, lastLine(output)], [0, "1 passed, 0 failed"], output);
  await rm(top, { recursive: true });
});

test("unit tests share processes, but not their totals, and a crash after the last ones is a failure", async () => {
  const top = await checkout({
    "unit/a": `test("pid", () => write("pid", process.pid)); ${ONE}`,
    "unit/b": `test("pid", () => console.log("b in", process.pid, "after", readFileSync("pid", "utf8"))); test("broken", () => assert.is(1, 2));`,
    "unit/c": `${ONE} setTimeout(() => { throw new Error("after the totals"); }, 300);`,
  });
  const names = ["a", "b", "c"].map((name) => `unit/${name}`);
  await writeFile(join(top, "tests/seconds.json"), '{ "unit/a": 3, "unit/b": 2, "unit/c": 1 }');
  const { code, output } = await start(top, ["--unit"], { TEST_JOBS: "1" }).ended;
  assert.equal(
    [...names, "unit, after the tests"].map((name) => lineOf(output, name)),
    [
      "✓ unit/a (2 tests",
      "✗ unit/b (1 of 2 passed",
      "✓ unit/c (1 test",
      "✗ unit, after the tests (no totals, exit code 1",
    ],
  );
  assert.match(output, /^b in (\d+) after \1$/m);
  assert.equal([code, lastLine(output)], [1, "4 passed, 2 failed"]);
  await rm(top, { recursive: true });
});

/** Interrupts a run whose test hangs with two child processes, one of them in its own process group. */
async function interrupt(
  kind: "unit" | "engine",
  signal: NodeJS.Signals,
  code: number,
  terminalClosed = false,
): Promise<void> {
  const top = await checkout({
    [`${kind}/hangs`]: `
      ${HANGS} // first, because the run is interrupted as soon as the files exist
      const sleeper = (detached: boolean) => spawn("sleep", ["60"], { detached, stdio: "inherit" }).pid;
      write("id", process.env.LOOP_TEST_RUN);
      write("pids", [process.pid, sleeper(false), sleeper(true)]);
      ${kind === "unit" ? 'test("never ends", () => new Promise(() => {}));' : ""}`,
    [`${kind}/later`]: ONE,
  });
  const read = (name: string) => readFile(join(top, name), "utf8").catch(() => "");
  const { child, ended } = start(top, [], { TEST_JOBS: "1" });
  assert.ok(await within(20, async () => (await read("pids")) !== ""));
  if (terminalClosed) for (const stream of [child.stdout, child.stderr]) stream.destroy();
  child.kill(signal);
  const end = await ended;
  assert.is(end.code, code, end.output);
  const [id, pids] = [await read("id"), await read("pids")];
  for (const pid of pids.split(",")) // a killed process is there until it is reaped
    assert.ok(await within(5, async () => !(await isAlive(Number(pid)))), `${pid} is still running`);
  assert.equal(
    (await readdir(tmpdir())).filter((name) => name.startsWith(`loop-test-${id}`)),
    [],
  );
  assert.is(await read("cleaned-up"), "yes");
  assert.match(await read("docker-calls"), "rm --force --volumes c1\n");
  await rm(top, { recursive: true });
  if (terminalClosed) return;
  assert.match(end.output, new RegExp(`^✗ ${kind}/hangs \\(.*interrupted by SIGINT, `, "m"));
  assert.match(end.output, `Left by the tests, and removed: containers loop-test-${id}-x-nginx\n`);
  assert.match(end.output, `Interrupted by SIGINT; not started: 1\n`);
  assert.is(lastLine(end.output), "0 passed, 1 failed");
}

test("an interrupted run ends all processes of its tests and removes what they left", () =>
  Promise.all([
    interrupt("engine", "SIGINT", 130),
    interrupt("unit", "SIGINT", 130),
    interrupt("engine", "SIGHUP", 129, true), // with a closed terminal
  ]).then(() => undefined));

test("the CI script runs six soak test files if npm test passes, and ends with the sum of the counts, even if no test has run", async () => {
  const top = await tempFolder("ci");
  await mkdir(join(top, "bin"));
  await cp(join(ROOT, ".ci/run"), join(top, ".ci/run"));
  const soak =
    "run soak -- soak/detection soak/moving-in soak/portability soak/swarm-docs soak/swarm-faults soak/switch";
  for (const { text, codes, exitCode, calls, last } of [
    { text: "setup: no engine", codes: [3, 0], calls: ["test"], last: "0 passed, 1 failed" },
    { text: "3 passed, 1 failed, 2 skipped", codes: [1, 0], calls: ["test"], last: "3 passed, 1 failed" },
    { text: "12 passed, 0 failed", codes: [0, 0], calls: ["test", soak], last: "24 passed, 0 failed" },
    { text: "12 passed, 0 failed", codes: [0, 4], calls: ["test", soak], last: "24 passed, 1 failed" },
    { text: "no counts", codes: [0, 0], exitCode: 1, calls: ["test"], last: "0 passed, 1 failed" },
  ].map((row) => ({ exitCode: Math.max(...row.codes), ...row }))) {
    const [tested, soaked] = codes;
    await writeFile(
      join(top, "bin/npm"),
      `#!/bin/sh\necho "$CI $NO_COLOR $@"\nprintf 'Slowest: x\\n${text}\\n'\n[ "$2" = test ] && exit ${tested}\nexit ${soaked}\n`,
    );
    await chmod(join(top, "bin/npm"), 0o755);
    const child = spawn(join(top, ".ci/run"), { env: { PATH: `${top}/bin:${process.env.PATH}` } });
    let output = "";
    child.stdout.on("data", (chunk) => {
      output += chunk;
    });
    assert.equal(await once(child, "close"), [exitCode, null], output);
    const made = [...output.matchAll(/^true 1 --silent (.*)$/gm)].map(([, call]) => call);
    assert.equal(made, calls, output);
    assert.is(lastLine(output), last);
  }
  await rm(top, { recursive: true });
});

test.run();
