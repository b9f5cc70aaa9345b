import { spawn } from "node:child_process";
import {
  appendFile,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun, waitForLock } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { recordIn, trusted } from "../../lib/release/migrate.ts";
import { readOnlyContext } from "../../lib/run/context.ts";
import { readHistory } from "../../lib/run/history.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

/** At the start of each test one color serves and the other is on standby. */
const migration = suite<{ stack: Scratch; oldFolder: string }>("migration from an older version");
migration.before(async (context) => {
  context.stack = await createReleasedScratch("migrate", { HEALTH_RETRIES: "60" });
  context.oldFolder = dirname(context.stack.stateFile);
  await writeFile(join(context.oldFolder, "../note.md"), ""); // an empty vault would look unmounted
});
migration.after(({ stack }) => stack.remove());

const OLD_NAMES = {
  lock: ".active-color.lock",
  "history.jsonl": "history.jsonl",
  "blue-green.log": "blue-green.log",
};

/** Moves all state beside the state file, where versions before STATE_DIR kept it. */
async function restoreOldLayout({ stateDir }: Scratch, oldFolder: string): Promise<void> {
  for (const [name, oldName] of Object.entries(OLD_NAMES))
    await rename(join(stateDir, name), join(oldFolder, oldName));
  await rm(stateDir, { recursive: true });
}

/** The runs in a history, without the durations, which are not migrated. */
async function runsIn(folder: string) {
  const runs = await readHistory(join(folder, "history.jsonl"));
  return runs.map(({ seconds: _, steps: __, ...run }) => run);
}

/** Runs a shell command in the container of the serving color, as root. */
async function execInside(stack: Scratch, command: string, ...options: string[]): Promise<void> {
  const { color } = await stack.get();
  const run = await stack.docker("exec", ...options, `${stack.project}-api-${color}`, "sh", "-c", command);
  assert.is(run.exitCode, 0, run.stdall);
}

async function imageId({ docker }: Scratch, name: string): Promise<string> {
  return (await docker("image", "inspect", "--format", "{{.Id}}", name)).stdout.trim();
}

/** Makes a run that ends soon after the migration, before it changes anything. Returns the output. */
async function migrate(stack: Scratch): Promise<{ stdout: string; stderr: string }> {
  const { color } = await stack.get();
  const run = await stack.rollback(["--to", "99"]);
  assert.is(run.exitCode, 2, run.stdall);
  assert.match(run.stderr, "There is no release 99");
  assert.equal([(await stack.get()).color, await stack.readStateFile()], [color, `${color}\n`]);
  return run;
}

/** Rolls back. Afterwards the other color serves. Returns the output. */
async function rollBack(stack: Scratch): Promise<{ stdout: string; stderr: string }> {
  const { color } = await stack.get();
  const other = color === "blue" ? "green" : "blue";
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  assert.equal(
    [(await stack.get()).color, await stack.running(), await stack.readStateFile()],
    [other, [other], `${other}\n`],
  );
  return run;
}

migration(
  "the first run migrates and removes the old files; restoring them from a backup changes nothing",
  async ({ stack, oldFolder }) => {
    await restoreOldLayout(stack, oldFolder);
    await appendFile(join(oldFolder, "history.jsonl"), '{"time":"torn');
    await appendFile(join(oldFolder, "blue-green.log"), "\u001b[2Jevil\n");
    const before = await runsIn(oldFolder);
    const backup = await readFile(join(oldFolder, "history.jsonl"), "utf8");
    const run = await rollBack(stack);
    assert.match(
      run.stdout,
      `migrated from ${oldFolder} to ${stack.stateDir}: the history of 2 runs, the log, as blue-green.log.1`,
    );
    const after = await readHistory(join(stack.stateDir, "history.jsonl"));
    assert.equal((await runsIn(stack.stateDir)).slice(0, 2), before);
    // A forged duration could make the build cache of other projects count as this project's.
    for (const { seconds, steps } of after.slice(0, 2))
      assert.equal([seconds, steps], [undefined, undefined]);
    assert.match(await readFile(join(stack.stateDir, "blue-green.log.1"), "utf8"), "\\x1b[2Jevil");
    assert.equal(await readdir(oldFolder), [".active-color"]);

    for (let i = 0; i < 3; i++) await appendFile(join(oldFolder, "history.jsonl"), backup);
    const next = await migrate(stack);
    assert.not.match(next.stdout, "migrated from");
    assert.is((await readHistory(join(stack.stateDir, "history.jsonl"))).length, 4);
    await rm(join(oldFolder, "history.jsonl"));
  },
);

migration(
  "files that another project may have used are copied and stay in place",
  async ({ stack, oldFolder }) => {
    await restoreOldLayout(stack, oldFolder);
    const before = (await readdir(oldFolder)).toSorted();
    const serving = await stack.readStateFile();
    const run = await stack.rollback([], { ACTIVE_COLOR_FILE: "" }); // the default for a project other than loop
    assert.is(run.exitCode, 0, run.stdall);
    assert.not.match(run.stderr, "no run has verified it"); // the color record was migrated
    const own = `.active-color.${stack.project}`;
    assert.match(
      run.stdout,
      `from now on, the state file of ${stack.project} is ${join(oldFolder, own)}, not ${stack.stateFile}`,
    );
    assert.equal((await readdir(oldFolder)).toSorted(), [...before, own].toSorted());
    assert.is(await readFile(join(oldFolder, own), "utf8"), `${(await stack.get()).color}\n`);
    assert.is(await stack.readStateFile(), serving, "another project's state file was written");
    for (const name of [own, ...Object.values(OLD_NAMES)]) await rm(join(oldFolder, name));
    await writeFile(stack.stateFile, await readFile(join(stack.stateDir, "active-color")));
  },
);

migration("a release of the old version that was killed is repaired", async ({ stack, oldFolder }) => {
  assert.is((await stack.get()).color, "blue");
  const image = await stack.docker("image", "inspect", "--format", "{{.Id}}", `${stack.project}-api:green`);
  const since = Date.now();
  const killed = startRun(stack, "deploy", await stack.apiVersion("7.7.7"));
  await waitForLock(stack, since);
  await killed.waitForStep("start green");
  killed.kill("SIGKILL");
  await killed.ended;
  await restoreOldLayout(stack, oldFolder);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: stack.folder }); // without a Dockerfile
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stdout, /the record of the unfinished deploy of \S+/);
  assert.match(run.stdout, "✓ restore the previous image of green");
  const now = await stack.docker("image", "inspect", "--format", "{{.Id}}", `${stack.project}-api:green`);
  assert.is(now.stdout, image.stdout);
  assert.equal([(await stack.get()).color, await stack.running()], ["blue", ["blue"]]);
});

const RECORD = {
  verb: "deploy",
  pid: 1,
  since: "2030-01-01T00:00:00Z",
  from: "blue",
  to: "green",
  started: true,
};
const NOT_OURS = "which this project did not build for green: ignored";

/** Run records that a container could have forged, and the warning for each. `image` returns the id of an image. */
const FORGED: Record<
  string,
  [forge: (image: (name: string) => Promise<string>) => object, warning?: string]
> = {
  "a rollback to the serving color": [
    () => ({ ...RECORD, verb: "rollback", since: new Date().toISOString(), from: "green", to: "blue" }),
  ],
  "a long verb": [() => ({ ...RECORD, verb: "deploy ".repeat(300) })],
  "a docker option as the previous image": [() => ({ ...RECORD, imageBefore: "--help" }), NOT_OURS],
  "another project's image": [
    async (image) => ({ ...RECORD, imageBefore: await image("nginx:1.30") }),
    NOT_OURS,
  ],
  "the image of auth": [async (image) => ({ ...RECORD, imageBefore: await image("-auth") }), NOT_OURS],
  "the other color's image": [
    async (image) => ({ ...RECORD, imageBefore: await image("-api:blue") }),
    NOT_OURS,
  ],
  "no previous image": [() => ({ ...RECORD, imageBefore: null })],
};

migration("no run record that a container forged is trusted; one that a run wrote is", async ({ stack }) => {
  const warnings: string[] = [];
  const log = { ...createLog(), warn: (text: string) => warnings.push(text) };
  const context = readOnlyContext(loadSettings(stack.env, "/nonexistent/.env.blue-green"), log);
  const image = (name: string) => imageId(stack, name.startsWith("-") ? `${stack.project}${name}` : name);
  const read = (record: object) => {
    const parsed = recordIn(JSON.stringify(record));
    return parsed && trusted(context, parsed);
  };
  for (const [what, [forge, warning = ""]] of Object.entries(FORGED)) {
    assert.is(await read(await forge(image)), undefined, what);
    assert.match(warnings.splice(0).join(), warning, what);
  }
  const genuine = { ...RECORD, imageBefore: await image("-api:green") };
  assert.is((await read(genuine))?.imageBefore, genuine.imageBefore);
  assert.equal(warnings, []);
});

migration("a run ignores a run record that a container forged", async ({ stack, oldFolder }) => {
  const tags = () =>
    Promise.all(["blue", "green"].map((color) => imageId(stack, `${stack.project}-api:${color}`)));
  const before = await tags();
  await restoreOldLayout(stack, oldFolder);
  const record = JSON.stringify({ ...RECORD, imageBefore: before[0] }); // the other color's image
  await execInside(stack, `echo '${record}' > /vault/_build/.active-color.lock`);
  assert.is((await stack.get()).color, "blue"); // else a trusted record would change nothing
  const run = await stack.deploy([], { LOOP_API_CONTEXT: stack.folder }); // fails at its build, after all repairs
  assert.is(run.exitCode, 1, run.stdall);
  assert.not.match(run.stdout, "the record of the unfinished");
  assert.match(run.stderr, NOT_OURS);
  assert.match(run.stderr, "Build failed");
  assert.equal(await tags(), before);
});

migration(
  "a run of the old version in progress holds the lock; no other process can",
  async ({ stack, oldFolder }) => {
    const file = join(oldFolder, ".active-color.lock");
    const recordOf = (pid = 0) => JSON.stringify({ ...RECORD, pid });
    /** Starts a process of this host that has the old lock open. */
    const startWithLock = async (command: string, args: string[]) => {
      const lock = await open(file, "w+");
      const stdio = ["ignore", "ignore", "ignore", "ignore", lock.fd] as const;
      const child = spawn(command, args, { stdio: [...stdio] });
      await lock.close();
      await writeFile(file, recordOf(child.pid));
      return child;
    };
    const expectMigration = async () => {
      assert.match((await migrate(stack)).stdout, "the history of");
    };
    await restoreOldLayout(stack, oldFolder);
    const script = join(stack.folder, "deploy-blue-green.mts");
    const inProgress = await startWithLock("sh", ["-c", "sleep 300; :", script]);
    const second = await stack.rollback();
    inProgress.kill("SIGKILL");
    assert.is(second.exitCode, 4, second.stdall);
    assert.match(
      second.stderr,
      `Another run holds the lock: the deploy with pid ${inProgress.pid}, since ${RECORD.since}, of an older version`,
    );
    assert.ok((await readdir(oldFolder)).includes("history.jsonl"), "nothing must be migrated yet");

    // The same in a container, which also holds the kernel's lock.
    const api = `${stack.project}-api-${(await stack.get()).color}`;
    const hold = "exec 3<>/vault/_build/.active-color.lock; flock 3; sleep 301; :";
    await stack.docker("exec", "-d", api, "sh", "-c", hold, "deploy-blue-green.mts");
    await sleep(500);
    const pids = (await stack.docker("top", api, "-o", "pid,args")).stdout;
    const holder = Number(pids.match(/(\d+)\s+sh -c exec 3/)?.[1]);
    assert.ok(holder > 0, pids);
    await writeFile(file, recordOf(holder));
    await expectMigration();

    // A process of this host that is not a run, such as a file server.
    await restoreOldLayout(stack, oldFolder);
    const server = await startWithLock("sleep", ["300"]);
    await expectMigration();
    server.kill("SIGKILL");
  },
);

migration(
  "an unmounted vault is rejected, and the old state is migrated later",
  async ({ stack, oldFolder }) => {
    const vault = dirname(oldFolder);
    await restoreOldLayout(stack, oldFolder);
    const before = await runsIn(oldFolder);
    await $({ quiet: true })`mount -t tmpfs tmpfs ${vault}`;
    try {
      const run = await stack.rollback();
      assert.is(run.exitCode, 1, run.stdall);
      assert.match(run.stderr, `The vault ${vault} is empty, but earlier releases used it`);
      assert.match(run.stderr, `not migrated from ${oldFolder}`);
      assert.equal(await readdir(vault), []);
    } finally {
      await $({ quiet: true })`umount ${vault}`;
    }
    const run = await migrate(stack);
    assert.match(run.stdout, `the history of ${before.length} runs`);
    assert.equal((await runsIn(stack.stateDir)).slice(0, before.length), before);
  },
);

migration("a link in place of the old folder only postpones the migration", async ({ stack, oldFolder }) => {
  await restoreOldLayout(stack, oldFolder);
  const before = await runsIn(oldFolder);
  await execInside(stack, `cd /vault && mv _build aside && ln -s ${stack.folder} _build`);
  const blocked = await stack.rollback(["--to", "99"]);
  assert.match(blocked.stderr, "There is no release 99");
  assert.match(blocked.stderr, /not migrated from .*; the next run tries again/);
  await execInside(stack, "cd /vault && rm _build && mv aside _build");
  await migrate(stack);
  const runs = await runsIn(stack.stateDir);
  assert.equal(runs.slice(0, before.length), before);
  assert.is(runs.length, before.length + 2);
});

migration(
  "links that a container put in place of the old files are not followed, and a process that has one's target open is not killed",
  async ({ stack, oldFolder }) => {
    await restoreOldLayout(stack, oldFolder);
    const outside = join(stack.folder, "outside");
    await mkdir(outside);
    for (const name of Object.values(OLD_NAMES)) {
      await writeFile(join(outside, name), `{"time":"","verb":"secret","result":"","message":""}\n`);
      await rm(join(oldFolder, name));
      await execInside(stack, `ln -s ${join(outside, name)} /vault/_build/${name}`);
    }
    // Like a daemon: the file is open as descriptor 3, and the parent has exited.
    const victim = join(outside, OLD_NAMES.lock);
    const line = `exec 3<>${victim}; sleep 300 >/dev/null 2>&1 & echo $!`;
    const pid = Number((await $({ quiet: true })`sh -c ${line}`).stdout);
    assert.is(await readlink(`/proc/${pid}/fd/3`), victim);
    const run = await migrate(stack);
    process.kill(pid, "SIGKILL"); // throws if it no longer runs
    for (const name of ["history.jsonl", OLD_NAMES.lock])
      assert.match(run.stderr, `${name} was not migrated: Error: ELOOP`);
    for (const name of await readdir(stack.stateDir))
      assert.not.match(await readFile(join(stack.stateDir, name), "utf8"), '"secret"');
    for (const name of Object.values(OLD_NAMES)) {
      assert.match(await readFile(join(outside, name), "utf8"), '"secret"');
      await rm(join(oldFolder, name));
    }
  },
);

migration("a migration that is killed at any moment loses nothing", async ({ stack, oldFolder }) => {
  await restoreOldLayout(stack, oldFolder);
  const before = await runsIn(oldFolder);
  for (let i = 0; i < 8; i++) {
    const since = Date.now();
    const run = startRun(stack, "rollback");
    await waitForLock(stack, since); // the migration comes next
    await sleep(i * 3);
    run.kill("SIGKILL");
    await run.ended;
  }
  await migrate(stack);
  const after = (await runsIn(stack.stateDir)).map((entry) => JSON.stringify(entry));
  for (const entry of before) assert.ok(after.includes(JSON.stringify(entry)), JSON.stringify(entry));
  assert.equal(await readdir(oldFolder), [".active-color"]);
});
migration.run();
