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
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun, waitForLock } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { readHistory } from "../../lib/run/history.ts";
import { suite } from "../suite.ts";

/** At the start of each test blue serves and green is on standby. */
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

async function backToBlue(stack: Scratch): Promise<void> {
  if ((await stack.get()).color === "green") {
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
  }
  assert.equal(
    [(await stack.get()).color, await stack.running(), await stack.readStateFile()],
    ["blue", ["blue"], "blue\n"],
  );
}

migration(
  "the first run migrates and removes the old files; restoring them from a backup changes nothing",
  async ({ stack, oldFolder }) => {
    await restoreOldLayout(stack, oldFolder);
    await appendFile(join(oldFolder, "history.jsonl"), '{"time":"torn');
    await appendFile(join(oldFolder, "blue-green.log"), "\u001b[2Jevil\n");
    const before = await runsIn(oldFolder);
    const backup = await readFile(join(oldFolder, "history.jsonl"), "utf8");
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
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
    const next = await stack.rollback();
    assert.is(next.exitCode, 0, next.stdall);
    assert.not.match(next.stdout, "migrated from");
    assert.is((await readHistory(join(stack.stateDir, "history.jsonl"))).length, 4);
    await rm(join(oldFolder, "history.jsonl"));
    await backToBlue(stack);
  },
);

migration("a release of the old version that was killed is repaired", async ({ stack, oldFolder }) => {
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
  await backToBlue(stack);
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

for (const [what, [forge, warning]] of Object.entries(FORGED)) {
  migration(`a run record that a container forged is not trusted: ${what}`, async ({ stack, oldFolder }) => {
    const image = (name: string) => imageId(stack, name.startsWith("-") ? `${stack.project}${name}` : name);
    const tags = () => Promise.all(["-api:blue", "-api:green"].map(image));
    const before = await tags();
    await restoreOldLayout(stack, oldFolder);
    const record = JSON.stringify(await forge(image));
    await execInside(stack, `echo '${record}' > /vault/_build/.active-color.lock`);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.not.match(run.stdout, "the record of the unfinished");
    if (warning) assert.match(run.stderr, warning);
    assert.equal([(await stack.get()).color, await stack.running()], ["green", ["green"]]);
    assert.equal(await tags(), before);
    await backToBlue(stack);
  });
}

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
      const run = await stack.rollback();
      assert.is(run.exitCode, 0, run.stdall);
      assert.match(run.stdout, "the history of");
      await backToBlue(stack);
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
    const api = `${stack.project}-api-blue`;
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
  "if a container links the old lock to a file of the host, the process that has that file open is not killed",
  async (context) => {
    const { stack, oldFolder } = context;
    await restoreOldLayout(stack, oldFolder);
    const victim = join(stack.folder, "victim");
    await writeFile(victim, "");
    // Like a daemon: the file is open as descriptor 3, and the parent has exited.
    const daemon = await $({
      quiet: true,
    })`sh -c ${`exec 3<>${victim}; sleep 300 >/dev/null 2>&1 & echo $!`}`;
    const pid = Number(daemon.stdout);
    assert.is(await readlink(`/proc/${pid}/fd/3`), victim);
    await rm(join(oldFolder, ".active-color.lock"), { force: true });
    await execInside(stack, `ln -s ${victim} /vault/_build/.active-color.lock`);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, ".active-color.lock was not migrated: Error: ELOOP");
    process.kill(pid, "SIGKILL"); // throws if it no longer runs
    await rm(join(oldFolder, ".active-color.lock"));
    await backToBlue(stack);
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
      for (const verb of ["deploy", "rollback"] as const) {
        const run = await stack[verb]();
        assert.is(run.exitCode, 1, run.stdall);
        assert.match(run.stderr, `The vault ${vault} is empty, but earlier releases used it`);
        assert.match(run.stderr, `not migrated from ${oldFolder}`);
        assert.equal(await readdir(vault), []);
      }
    } finally {
      await $({ quiet: true })`umount ${vault}`;
    }
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, `the history of ${before.length} runs`);
    assert.equal((await runsIn(stack.stateDir)).slice(0, before.length), before);
    await backToBlue(stack);
  },
);

migration("a link in place of the old folder only postpones the migration", async ({ stack, oldFolder }) => {
  await restoreOldLayout(stack, oldFolder);
  const before = await runsIn(oldFolder);
  await execInside(stack, `cd /vault && mv _build aside && ln -s ${stack.folder} _build`);
  const blocked = await stack.rollback();
  assert.is(blocked.exitCode, 0, blocked.stdall);
  assert.match(blocked.stderr, /not migrated from .*; the next run tries again/);
  await execInside(stack, "cd /vault && rm _build && mv aside _build");
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  const runs = await runsIn(stack.stateDir);
  assert.equal(runs.slice(0, before.length), before);
  assert.is(runs.length, before.length + 2);
  await backToBlue(stack);
});

migration(
  "links that a container put in place of the old files are not followed",
  async ({ stack, oldFolder }) => {
    await restoreOldLayout(stack, oldFolder);
    const outside = join(stack.folder, "outside");
    await mkdir(outside);
    for (const name of Object.values(OLD_NAMES)) {
      await writeFile(join(outside, name), `{"time":"","verb":"secret","result":"","message":""}\n`);
      await rm(join(oldFolder, name));
      await symlink(join(outside, name), join(oldFolder, name));
    }
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, "history.jsonl was not migrated: Error: ELOOP");
    for (const name of await readdir(stack.stateDir))
      assert.not.match(await readFile(join(stack.stateDir, name), "utf8"), '"secret"');
    for (const name of Object.values(OLD_NAMES)) {
      assert.match(await readFile(join(outside, name), "utf8"), '"secret"');
      await rm(join(oldFolder, name));
    }
    await backToBlue(stack);
  },
);

migration(
  "files that another project may have used are copied and stay in place",
  async ({ stack, oldFolder }) => {
    await restoreOldLayout(stack, oldFolder);
    const before = (await readdir(oldFolder)).toSorted();
    const run = await stack.deploy([], { ACTIVE_COLOR_FILE: "" }); // the default for a project other than loop
    assert.is(run.exitCode, 0, run.stdall);
    assert.not.match(run.stderr, "no run has verified it"); // the color record was migrated
    const own = `.active-color.${stack.project}`;
    assert.match(
      run.stdout,
      `from now on, the state file of ${stack.project} is ${join(oldFolder, own)}, not ${stack.stateFile}`,
    );
    assert.equal((await readdir(oldFolder)).toSorted(), [...before, own].toSorted());
    assert.is(await readFile(join(oldFolder, own), "utf8"), "green\n");
    assert.is(await stack.readStateFile(), "blue\n", "another project's state file was written");
    for (const name of [own, ...Object.values(OLD_NAMES)]) await rm(join(oldFolder, name));
    await backToBlue(stack);
  },
);

migration("a migration that is killed at any moment loses nothing", async ({ stack, oldFolder }) => {
  await restoreOldLayout(stack, oldFolder);
  const before = await runsIn(oldFolder);
  for (let i = 0; i < 12; i++) {
    const since = Date.now();
    const run = startRun(stack, "rollback");
    await waitForLock(stack, since); // the migration comes next
    await sleep(i * 2);
    run.kill("SIGKILL");
    await run.ended;
  }
  const run = await stack.deploy(["--keep", "serving"]);
  assert.is(run.exitCode, 0, run.stdall);
  const after = (await runsIn(stack.stateDir)).map((entry) => JSON.stringify(entry));
  for (const entry of before) assert.ok(after.includes(JSON.stringify(entry)), JSON.stringify(entry));
  assert.equal(await readdir(oldFolder), [".active-color"]);
});
migration.run();
