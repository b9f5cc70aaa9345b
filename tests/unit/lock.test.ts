import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { LockedError, StateFileError } from "../../lib/errors.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const lock = suite<{ folder: string; file: string }>("lock");
lock.before.each(async (context) => {
  context.folder = await tempFolder("lock");
  context.file = join(context.folder, "_build/.active-color.lock");
});
lock.after.each(({ folder }) => rm(folder, { recursive: true }));

const silent = () => undefined;

async function thrown(act: Promise<unknown>): Promise<Error> {
  try {
    await act;
  } catch (error) {
    return error as Error;
  }
  return assert.unreachable("nothing was thrown") as never;
}

lock("the second is told at once who holds it and since when; then it is free again", async ({ file }) => {
  const first = await takeLock(file, "deploy", silent);
  const since = performance.now();
  const error = await thrown(takeLock(file, "rollback", silent));
  assert.instance(error, LockedError);
  assert.match(error.message, `the deploy with pid ${process.pid}, since ${first.recorded().since}`);
  assert.ok(performance.now() - since < 1000);
  first.end("nothing");
  const second = await takeLock(file, "rollback", silent);
  assert.is(second.unfinished(), undefined);
  second.end("nothing");
});

/** Takes the lock in a process of its own, notes something, starts a command, and is killed. */
async function killedHolder(file: string, seconds = 1): Promise<void> {
  const script = `
    import { takeLock } from ${JSON.stringify(join(ROOT, "lib/run/lock.ts"))};
    import { run } from ${JSON.stringify(join(ROOT, "lib/run/command.ts"))};
    const lock = await takeLock(${JSON.stringify(file)}, "deploy", () => undefined);
    lock.record({ from: "blue", to: "green", imageBefore: null });
    run("sleep", ["${seconds}"], { deadline: undefined, keepOpen: lock.descriptor });
    setTimeout(() => process.kill(process.pid, "SIGKILL"), 150);
  `;
  await $({ quiet: true, nothrow: true, cwd: ROOT })`node --import tsx --input-type=module -e ${script}`;
}

lock("a killed run's last command is waited for, and what the run noted is found", async ({ file }) => {
  await killedHolder(file);
  const warnings: string[] = [];
  const since = performance.now();
  const next = await takeLock(file, "rollback", (message) => warnings.push(message));
  assert.ok(performance.now() - since > 300, "the killed run's command still ran");
  assert.match(warnings.join(), "was killed; waiting for its last command to end");
  const { verb, from, to, imageBefore } = next.unfinished() ?? {};
  assert.equal([verb, from, to, imageBefore], ["deploy", "blue", "green", null]);
  next.end("nothing");
});

lock(
  "a killed run's command that hangs is killed after a while: it would block every later run",
  async ({ file }) => {
    await killedHolder(file, 300);
    const since = performance.now();
    (await takeLock(file, "deploy", silent, 1)).end("nothing");
    assert.ok(performance.now() - since > 800);
  },
);

lock("another run that waits for the same dead run keeps its life", async ({ file }) => {
  await killedHolder(file, 300);
  const waiter = `
    import { takeLock } from ${JSON.stringify(join(ROOT, "lib/run/lock.ts"))};
    const lock = await takeLock(${JSON.stringify(file)}, "rollback", () => undefined, 2);
    console.log("got it");
    lock.end("nothing");
  `;
  const take = () =>
    $({ quiet: true, nothrow: true, cwd: ROOT })`node --import tsx --input-type=module -e ${waiter}`;
  const both = await Promise.all([take(), take(), take()]);
  for (const { stdall, exitCode } of both) {
    assert.is(exitCode, 0, stdall);
    assert.match(stdall, "got it");
  }
});

lock("what is not settled is found again by the run after the next", async ({ file }) => {
  await killedHolder(file);
  (await takeLock(file, "deploy", silent)).end("the earlier record"); // came to its end, but not so far as to settle
  const third = await takeLock(file, "deploy", silent);
  assert.is(third.unfinished()?.to, "green");
  third.record({ from: "green" });
  assert.is(JSON.parse(await readFile(file, "utf8")).to, "green", "a crash of this run would forget it");
  third.clearUnfinished();
  third.end("nothing");
  const fourth = await takeLock(file, "deploy", silent);
  assert.is(fourth.unfinished(), undefined);
  fourth.end("nothing");
});

lock("a note can be read also where something longer was there before", async ({ file }) => {
  await mkdir(dirname(file));
  await writeFile(file, "x".repeat(5000));
  const first = await takeLock(file, "deploy", silent);
  first.record({ to: "green" });
  assert.is(JSON.parse(await readFile(file, "utf8")).to, "green");
  first.end("its own record");
  const second = await takeLock(file, "deploy", silent);
  assert.is(second.unfinished()?.to, "green");
  second.end("nothing");
});

lock("what no script has noted counts as nothing", async ({ file }) => {
  await mkdir(dirname(file));
  const note = { pid: 1, since: "2026-01-01T00:00:00Z", to: "green" };
  await writeFile(file, JSON.stringify({ ...note, verb: "deploy".repeat(500) }));
  const next = await takeLock(file, "deploy", silent);
  assert.is(next.unfinished(), undefined);
  next.end("nothing");
});

lock("a lock that cannot be written is an error that names the file", async () => {
  const error = await thrown(takeLock("/proc/loop/.active-color.lock", "deploy", silent));
  assert.instance(error, StateFileError);
  assert.match(error.message, "/proc/loop/.active-color.lock");
});

lock("a holder that is alive holds it as long as it lives", async ({ file }) => {
  const holder = $({ quiet: true, nothrow: true, cwd: ROOT })`node --import tsx --input-type=module -e ${`
    import { takeLock } from ${JSON.stringify(join(ROOT, "lib/run/lock.ts"))};
    await takeLock(${JSON.stringify(file)}, "deploy", () => undefined);
    setTimeout(() => {}, 60_000);
  `}`;
  await waitFor("it is locked", async () => (await readFile(file, "utf8")).includes("deploy"));
  const { pid } = JSON.parse(await readFile(file, "utf8"));
  assert.match((await thrown(takeLock(file, "deploy", silent))).message, `pid ${pid}`);
  process.kill(pid, "SIGKILL");
  await holder;
  (await takeLock(file, "deploy", silent)).end("nothing");
});
lock.run();
