import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { InterruptedError } from "../../lib/errors.ts";
import { type Context, readOnlyContext } from "../../lib/run/context.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { createLog } from "../../lib/run/log.ts";
import { failureDetails, runOwnerCommand } from "../../lib/run/owner-command.ts";
import { loadSettings, ROOT } from "../../lib/settings.ts";
import { bundle, bundleFolder } from "../bundles.ts";

const folder = await tempFolder("owner-command");
const SECRET = "https://example.org/hook?token=secret";

/** Runs a script for `sh -c` as an owner's command; `lines` is what the log file has received. */
async function runCommand(script: string, how: { seconds?: number; signal?: AbortSignal } = {}) {
  const lines: string[] = [];
  const log = createLog({ quiet: true, file: (line) => lines.push(...line.split("\n")) });
  const settings = loadSettings({ ...process.env, NOTIFY_URL: SECRET, MINE: "of the run" }, "/no/such/file");
  const base = readOnlyContext(settings, log);
  const context: Context = { ...base, signal: how.signal ?? base.signal };
  const variables = { LOOP_COLOR: "green", DIR: folder };
  const command = ["/bin/sh", "-c", script];
  const ended = await runOwnerCommand(context, command, how.seconds ?? 20, variables).catch((error) => error);
  return { ended, lines: lines.map((line) => line.replace(/^\S+ /, "")) };
}

/** Has a process neither ended nor become a zombie? */
const isAlive = async (pid: number): Promise<boolean> =>
  (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")) !== "";

/** The process id that a command writes into this file. */
async function pidIn(name: string): Promise<number> {
  const read = async () => Number(await readFile(join(folder, name), "utf8"));
  await waitFor(`a process id in ${name}`, async () => (await read()) > 0);
  return read();
}

async function assertDead(name: string): Promise<void> {
  const pid = await pidIn(name);
  await waitFor(`the process of ${name} is dead`, async () => !(await isAlive(pid)));
}

/** Starts a process in the background of a command, with its id in a file. */
const inBackground = (name: string) => `sleep 300 & echo $! >$DIR/${name}`;

test("a command runs in the checkout, with the environment of the run and its own variables, without secrets", async () => {
  const { ended, lines } = await runCommand('pwd -P; echo "$MINE $LOOP_COLOR"; env');
  assert.is(ended.failure, undefined);
  assert.equal(lines.slice(0, 2), [`  ${ROOT.replace(/\/$/, "")}`, "  of the run green"]);
  assert.ok(lines.includes("  COMPOSE_PROJECT_NAME=loop"), "no settings");
  assert.not.match(lines.join("\n"), "token=secret");
});

test("a command inherits neither the lock nor the watchdog's pipe, and nothing to read", async () => {
  const { lines } = await runCommand("for fd in 0 3 4; do readlink /proc/$$/fd/$fd || echo closed; done");
  assert.equal(lines, ["  /dev/null", "  closed", "  closed"]);
});

test("stdout and stderr are logged in their order, indented and escaped", async () => {
  const { lines } = await runCommand(String.raw`echo one; echo two >&2; printf '\033[2Jthree\rfour'`);
  assert.equal(lines, ["  one", "  two", String.raw`  \x1b[2Jthree`, "  four"]);
});

test("a failure is described with the last lines of the output", async () => {
  const failed = await runCommand("seq 100; exit 3");
  assert.match(failureDetails(failed.ended), /^exit code 3; the last lines of its output:\n81\n.*\n100$/s);
  assert.is(failureDetails((await runCommand("kill -KILL $$")).ended), "killed by SIGKILL");
  assert.match(failureDetails((await runCommand("exec /no/such/file")).ended), "exit code 127");
});

test("an endless output is cut, and neither fills the log nor the memory", async () => {
  const { ended, lines } = await runCommand(
    "yes | head -n 50000; head -c 100000 /dev/zero | tr '\\0' x; echo; head -c 1000000 /dev/zero | tr '\\0' x; exit 1",
  );
  assert.equal(lines.slice(999), ["  y", "  … the rest is not shown"]);
  assert.ok(ended.output.length <= 20 * 4001, `${ended.output.length} characters`);
});

test("at its deadline a command is killed with its background processes", async () => {
  const { ended } = await runCommand(`${inBackground("late")}; wait`, { seconds: 0.5 });
  assert.is(ended.failure, "not done within 0.5 s");
  await assertDead("late");
});

test("a signal to the run kills a command with its background processes", async () => {
  const end = new AbortController();
  const running = runCommand(`${inBackground("interrupted")}; wait`, { signal: end.signal });
  await pidIn("interrupted");
  end.abort(new InterruptedError("SIGTERM"));
  assert.instance((await running).ended, InterruptedError);
  await assertDead("interrupted");
});

test("what a command leaves in the background ends with it, and cannot delay the run", async () => {
  const { ended } = await runCommand(inBackground("left"));
  assert.is(ended.failure, undefined);
  await assertDead("left");

  const daemon = await runCommand("setsid sleep 300 & echo $! >$DIR/daemon; sleep 0.2; echo done");
  const pid = await pidIn("daemon");
  assert.ok(await isAlive(pid), "it waited for a process that had left the group");
  process.kill(pid);
  assert.equal([daemon.ended.failure, daemon.lines], [undefined, ["  done"]]);
});

test("a command that waits for all its children, or signals its own group, ends as it wants", async () => {
  const children = await runCommand("exec perl -e '1 while wait() != -1; print qq(none left\\n)'");
  assert.equal(children.lines, ["  none left"]);
  const itself = await runCommand('trap "exit 5" TERM; kill 0; sleep 1');
  assert.is(itself.ended.failure, "exit code 5");
});

/** The lock and owner's commands, for a run that is killed. */
const bundles = await bundle(
  ["lock.ts", "owner-command.ts", "context.ts", "log.ts"].map((file) => join(ROOT, "lib/run", file)),
  await bundleFolder(ROOT, "owner-command-bundles"),
);
const moduleOf = (name: string) => JSON.stringify(join(bundles, `${name}.mjs`));

/** Starts a run that takes the lock and runs an owner's command, and kills it with SIGKILL when that has written a process id. */
async function killRunDuring(script: string, file: string, name: string): Promise<void> {
  const run = `
    import { takeLock } from ${moduleOf("lock")};
    import { runOwnerCommand } from ${moduleOf("owner-command")};
    import { readOnlyContext } from ${moduleOf("context")};
    import { createLog } from ${moduleOf("log")};
    const lock = await takeLock(${JSON.stringify(file)}, "deploy", () => undefined);
    const context = readOnlyContext({ environment: { PATH: process.env.PATH } }, createLog());
    const variables = { DIR: ${JSON.stringify(folder)} };
    await runOwnerCommand({ ...context, lock }, ["/bin/sh", "-c", ${JSON.stringify(script)}], 60, variables);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", run], { stdio: "inherit" });
  const ended = once(child, "exit");
  await pidIn(name);
  child.kill("SIGKILL");
  await ended;
}

test("kill -9 of the run kills a command with its background processes, and the next run gets the lock", async () => {
  const file = join(folder, "lock");
  // The signal to its own group must not end the watchdog.
  const script = `trap "" TERM HUP; kill 0; echo $$ >$DIR/parent; ${inBackground("killed")}; wait`;
  await killRunDuring(script, file, "killed");
  const next = await takeLock(file, "deploy", () => undefined, 10);
  await assertDead("parent");
  await assertDead("killed");
  next.end("nothing");
});

test("a process that has left the group of a killed run's command does not block the next run", async () => {
  const file = join(folder, "lock");
  // It writes its id itself, once it has left the group: otherwise the kill could come before that.
  await killRunDuring("setsid sh -c 'echo $$ >$DIR/escaped; exec sleep 300' & wait", file, "escaped");
  const next = await takeLock(file, "deploy", () => undefined, 1);
  assert.ok(await isAlive(await pidIn("escaped")), "the next run had to kill it");
  process.kill(await pidIn("escaped"));
  next.end("nothing");
});
test.run();
