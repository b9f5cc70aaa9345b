import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { LockedError, StateFileError } from "../../lib/errors.ts";
import { MECHANISMS } from "../../lib/run/flock.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { ROOT } from "../../lib/settings.ts";
import { bundle, bundleFolder } from "../bundles.ts";
import { allow } from "../mechanisms.ts";
import { suite } from "../suite.ts";

const ignore = () => undefined;

async function errorOf(act: Promise<unknown>): Promise<Error> {
  try {
    await act;
  } catch (error) {
    return error as Error;
  }
  return assert.unreachable("nothing was thrown") as never;
}

/** The lock and the commands of a run, for processes that would take long to load the sources. */
const bundles = await bundle(
  ["lock.ts", "command.ts"].map((file) => join(ROOT, "lib/run", file)),
  await bundleFolder(ROOT, "lock-bundles"),
);
const LOCK = JSON.stringify(join(bundles, "lock.mjs"));

/** Runs a script in a process of its own. */
const runScript = (script: string) =>
  $({ quiet: true, nothrow: true, cwd: ROOT })`node --input-type=module -e ${script}`;

/** A process that takes the lock, writes a run record, starts a command and is killed. */
async function startKilledHolder(file: string, seconds = 1): Promise<void> {
  const script = `
    import { takeLock } from ${LOCK};
    import { run } from ${JSON.stringify(join(bundles, "command.mjs"))};
    const lock = await takeLock(${JSON.stringify(file)}, "deploy", () => undefined);
    lock.record({ from: "blue", to: "green", imageBefore: null });
    run("sleep", ["${seconds}"], { deadline: undefined, keepOpen: lock.descriptor });
    setTimeout(() => process.kill(process.pid, "SIGKILL"), 150);
  `;
  const { signal, stdall } = await runScript(script);
  assert.is(signal, "SIGKILL", stdall);
}

for (const mechanism of MECHANISMS) {
  const lock = suite<{ folder: string; file: string; path: string }>(`lock, with ${mechanism.command}`);
  lock.before.each(async (context) => {
    context.folder = await tempFolder("lock");
    context.file = join(context.folder, "_build/.active-color.lock");
    context.path = process.env.PATH ?? "";
    await allow(context.folder, [mechanism], context.path, ["node", "sleep"]);
  });
  lock.after.each(async ({ folder, path }) => {
    process.env.PATH = path;
    await rm(folder, { recursive: true });
  });

  lock("a second run learns who holds the lock, and gets it when the first has ended", async ({ file }) => {
    const first = await takeLock(file, "deploy", ignore);
    const error = await errorOf(takeLock(file, "rollback", ignore)); // without waiting for the lock, which stays held
    assert.instance(error, LockedError);
    assert.match(error.message, `the deploy with pid ${process.pid}, since ${first.recorded().since}`);
    first.end("nothing");
    const second = await takeLock(file, "rollback", ignore);
    assert.is(second.unfinished(), undefined);
    second.end("nothing");
  });

  lock(
    "the next run waits for the last command of a killed run and finds its run record",
    async ({ file }) => {
      await startKilledHolder(file);
      const warnings: string[] = [];
      const since = performance.now();
      const next = await takeLock(file, "rollback", (message) => warnings.push(message));
      assert.ok(performance.now() - since > 300, "it did not wait for the killed run's command");
      assert.match(warnings.join(), "was killed; waiting for its last command to end");
      const { verb, from, to, imageBefore } = next.unfinished() ?? {};
      assert.equal([verb, from, to, imageBefore], ["deploy", "blue", "green", null]);
      next.end("nothing");
    },
  );

  lock(
    "a hung command of a killed run is killed after a while, so that it does not block later runs",
    async ({ file }) => {
      await startKilledHolder(file, 300);
      const since = performance.now();
      (await takeLock(file, "deploy", ignore, 1)).end("nothing");
      assert.ok(performance.now() - since > 800);
    },
  );

  lock("several runs that wait for the same killed run do not kill each other", async ({ file }) => {
    await startKilledHolder(file, 300);
    const waiter = `
      import { takeLock } from ${LOCK};
      const take = () => takeLock(${JSON.stringify(file)}, "rollback", () => undefined, 5);
      // On a busy machine, one that comes late may find that another has the lock.
      const retry = (error) => (/another run holds the lock: (the rollback|a run that just started)/i.test(error.message) ? take().catch(retry) : Promise.reject(error));
      const lock = await take().catch(retry);
      console.log("got it");
      lock.end("nothing");
    `;
    const both = await Promise.all([1, 2, 3].map(() => runScript(waiter)));
    for (const { stdall, exitCode } of both) {
      assert.is(exitCode, 0, stdall);
      assert.match(stdall, "got it");
    }
  });

  lock("an unrecovered run record is kept until a later run recovers it", async ({ file }) => {
    await startKilledHolder(file);
    (await takeLock(file, "deploy", ignore)).end("the earlier record"); // it ended before it recovered the killed run
    const third = await takeLock(file, "deploy", ignore);
    assert.is(third.unfinished()?.to, "green");
    third.record({ from: "green" });
    assert.is(
      JSON.parse(await readFile(file, "utf8")).to,
      "green",
      "if this run crashed, the record would be lost",
    );
    third.clearUnfinished();
    third.end("nothing");
    const fourth = await takeLock(file, "deploy", ignore);
    assert.is(fourth.unfinished(), undefined);
    fourth.end("nothing");
  });

  lock("a run record is readable even where the file was longer before", async ({ file }) => {
    await mkdir(dirname(file));
    await writeFile(file, "x".repeat(5000));
    const first = await takeLock(file, "deploy", ignore);
    first.record({ to: "green" });
    assert.is(JSON.parse(await readFile(file, "utf8")).to, "green");
    first.end("its own record");
    const second = await takeLock(file, "deploy", ignore);
    assert.is(second.unfinished()?.to, "green");
    second.end("nothing");
  });

  lock("a record that no script could have written is ignored", async ({ file }) => {
    await mkdir(dirname(file));
    const record = { pid: 1, since: "2026-01-01T00:00:00Z", to: "green" };
    await writeFile(file, JSON.stringify({ ...record, verb: "deploy".repeat(500) }));
    const next = await takeLock(file, "deploy", ignore);
    assert.is(next.unfinished(), undefined);
    next.end("nothing");
  });

  lock("a lock that cannot be written is an error that names the file", async () => {
    const error = await errorOf(takeLock("/proc/loop/.active-color.lock", "deploy", ignore));
    assert.instance(error, StateFileError);
    assert.match(error.message, "/proc/loop/.active-color.lock");
  });

  lock("a live run holds the lock until it ends", async ({ file }) => {
    const holder = runScript(`
      import { takeLock } from ${LOCK};
      await takeLock(${JSON.stringify(file)}, "deploy", () => undefined);
      setTimeout(() => {}, 60_000);
    `);
    await waitFor("it is locked", async () => (await readFile(file, "utf8")).includes("deploy"));
    const { pid } = JSON.parse(await readFile(file, "utf8"));
    assert.match((await errorOf(takeLock(file, "deploy", ignore))).message, `pid ${pid}`);
    process.kill(pid, "SIGKILL");
    await holder;
    (await takeLock(file, "deploy", ignore)).end("nothing");
  });
  lock.run();
}
