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

/** Blue serves at the start of each, and green stands by. */
const migration = suite<{ stack: Scratch; old: string }>("taking over the state of an older version");
migration.before(async (context) => {
  context.stack = await createReleasedScratch("migrate", { HEALTH_RETRIES: "60" });
  context.old = dirname(context.stack.stateFile);
  await writeFile(join(context.old, "../note.md"), ""); // an empty vault would be taken for one that is lost
});
migration.after(({ stack }) => stack.remove());

const OLD_NAMES = {
  lock: ".active-color.lock",
  "history.jsonl": "history.jsonl",
  "blue-green.log": "blue-green.log",
};

/** Makes it look as versions before STATE_DIR left it: all of it beside the state file. */
async function age({ stateDir }: Scratch, old: string): Promise<void> {
  for (const [now, before] of Object.entries(OLD_NAMES)) await rename(join(stateDir, now), join(old, before));
  await rm(stateDir, { recursive: true });
}

/** Without the times, which are not taken over. */
async function runsIn(folder: string) {
  const runs = await readHistory(join(folder, "history.jsonl"));
  return runs.map(({ seconds: _, steps: __, ...run }) => run);
}

/** Does something in the container of the color that serves, as root. */
async function inside(stack: Scratch, command: string, ...options: string[]): Promise<void> {
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
  "the first run takes all of it over, says so, and removes it; a backup of it changes nothing",
  async ({ stack, old }) => {
    await age(stack, old);
    await appendFile(join(old, "history.jsonl"), '{"time":"torn');
    await appendFile(join(old, "blue-green.log"), "\u001b[2Jevil\n");
    const before = await runsIn(old);
    const backup = await readFile(join(old, "history.jsonl"), "utf8");
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stdout,
      `migrated from ${old} to ${stack.stateDir}: the history of 2 runs, the log, as blue-green.log.1`,
    );
    const after = await readHistory(join(stack.stateDir, "history.jsonl"));
    assert.equal((await runsIn(stack.stateDir)).slice(0, 2), before);
    // Long enough, a forged run would make every project's build cache count as this one's.
    for (const { seconds, steps } of after.slice(0, 2))
      assert.equal([seconds, steps], [undefined, undefined]);
    assert.match(await readFile(join(stack.stateDir, "blue-green.log.1"), "utf8"), "\\x1b[2Jevil");
    assert.equal(await readdir(old), [".active-color"]);

    for (let i = 0; i < 3; i++) await appendFile(join(old, "history.jsonl"), backup);
    const next = await stack.rollback();
    assert.is(next.exitCode, 0, next.stdall);
    assert.not.match(next.stdout, "migrated from");
    assert.is((await readHistory(join(stack.stateDir, "history.jsonl"))).length, 4);
    await rm(join(old, "history.jsonl"));
    await backToBlue(stack);
  },
);

migration("a release that the old version was killed in is put right", async ({ stack, old }) => {
  const image = await stack.docker("image", "inspect", "--format", "{{.Id}}", `${stack.project}-api:green`);
  const since = Date.now();
  const killed = startRun(stack, "deploy", await stack.apiVersion("7.7.7"));
  await waitForLock(stack, since);
  await killed.waitForStep("start green");
  killed.kill("SIGKILL");
  await killed.ended;
  await age(stack, old);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: stack.folder }); // nothing to build there
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stdout, /the record of the unfinished deploy of \S+/);
  assert.match(run.stdout, "✓ restore the previous image of green");
  const now = await stack.docker("image", "inspect", "--format", "{{.Id}}", `${stack.project}-api:green`);
  assert.is(now.stdout, image.stdout);
  await backToBlue(stack);
});

const NOTE = {
  verb: "deploy",
  pid: 1,
  since: "2030-01-01T00:00:00Z",
  from: "blue",
  to: "green",
  started: true,
};
const NOT_OURS = "which this project did not build for green: ignored";

/** What a container could have written as the note, and what is said of it; `image` gives an image's id. */
const FORGED: Record<string, [note: (image: (name: string) => Promise<string>) => object, said?: string]> = {
  "a rollback to what serves": [
    () => ({ ...NOTE, verb: "rollback", since: new Date().toISOString(), from: "green", to: "blue" }),
  ],
  "a long verb": [() => ({ ...NOTE, verb: "deploy ".repeat(300) })],
  "an option of docker's as the image before": [() => ({ ...NOTE, imageBefore: "--help" }), NOT_OURS],
  "a stranger's image": [async (image) => ({ ...NOTE, imageBefore: await image("nginx:1.30") }), NOT_OURS],
  "the image of auth": [async (image) => ({ ...NOTE, imageBefore: await image("-auth") }), NOT_OURS],
  "the other color's image": [
    async (image) => ({ ...NOTE, imageBefore: await image("-api:blue") }),
    NOT_OURS,
  ],
  "no image before": [() => ({ ...NOTE, imageBefore: null })],
};

for (const [what, [forge, said]] of Object.entries(FORGED)) {
  migration(`a container has forged the note, ${what}: it is not gone by`, async ({ stack, old }) => {
    const image = (name: string) => imageId(stack, name.startsWith("-") ? `${stack.project}${name}` : name);
    const tags = () => Promise.all(["-api:blue", "-api:green"].map(image));
    const before = await tags();
    await age(stack, old);
    const note = JSON.stringify(await forge(image));
    await inside(stack, `echo '${note}' > /vault/_build/.active-color.lock`);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.not.match(run.stdout, "the record of the unfinished");
    if (said) assert.match(run.stderr, said);
    assert.equal([(await stack.get()).color, await stack.running()], ["green", ["green"]]);
    assert.equal(await tags(), before);
    await backToBlue(stack);
  });
}

migration(
  "a run of the old version that is at work holds the lock; nobody else can",
  async ({ stack, old }) => {
    const file = join(old, ".active-color.lock");
    const note = (pid = 0) => JSON.stringify({ ...NOTE, pid });
    /** A process of this host that has the old lock open. */
    const withLock = async (command: string, args: string[]) => {
      const lock = await open(file, "w+");
      const stdio = ["ignore", "ignore", "ignore", "ignore", lock.fd] as const;
      const child = spawn(command, args, { stdio: [...stdio] });
      await lock.close();
      await writeFile(file, note(child.pid));
      return child;
    };
    const goesOn = async () => {
      const run = await stack.rollback();
      assert.is(run.exitCode, 0, run.stdall);
      assert.match(run.stdout, "the history of");
      await backToBlue(stack);
    };
    await age(stack, old);
    const script = join(stack.folder, "deploy-blue-green.mts");
    const atWork = await withLock("sh", ["-c", "sleep 300; :", script]);
    const second = await stack.rollback();
    atWork.kill("SIGKILL");
    assert.is(second.exitCode, 4, second.stdall);
    assert.match(
      second.stderr,
      `Another run holds the lock: the deploy with pid ${atWork.pid}, since ${NOTE.since}, of an older version`,
    );
    assert.ok((await readdir(old)).includes("history.jsonl"), "nothing was taken over yet");

    // The same, and the kernel's lock, in a container.
    const api = `${stack.project}-api-blue`;
    const hold = "exec 3<>/vault/_build/.active-color.lock; flock 3; sleep 301; :";
    await stack.docker("exec", "-d", api, "sh", "-c", hold, "deploy-blue-green.mts");
    await sleep(500);
    const pids = (await stack.docker("top", api, "-o", "pid,args")).stdout;
    const holder = Number(pids.match(/(\d+)\s+sh -c exec 3/)?.[1]);
    assert.ok(holder > 0, pids);
    await writeFile(file, note(holder));
    await goesOn();

    // As a file server of this host has a file of the vault open.
    await age(stack, old);
    const server = await withLock("sleep", ["300"]);
    await goesOn();
    server.kill("SIGKILL");
  },
);

migration(
  "a container points the old lock at a file of the host: whoever has that open lives on",
  async (context) => {
    const { stack, old } = context;
    await age(stack, old);
    const victim = join(stack.folder, "victim");
    await writeFile(victim, "");
    // As a daemon has it: open as descriptor 3, and its parent is gone.
    const daemon = await $({
      quiet: true,
    })`sh -c ${`exec 3<>${victim}; sleep 300 >/dev/null 2>&1 & echo $!`}`;
    const pid = Number(daemon.stdout);
    assert.is(await readlink(`/proc/${pid}/fd/3`), victim);
    await rm(join(old, ".active-color.lock"), { force: true });
    await inside(stack, `ln -s ${victim} /vault/_build/.active-color.lock`);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, ".active-color.lock was not migrated: Error: ELOOP");
    process.kill(pid, "SIGKILL"); // throws when it is dead
    await rm(join(old, ".active-color.lock"));
    await backToBlue(stack);
  },
);

migration(
  "a vault that is not mounted is refused, and the old state is taken over later",
  async ({ stack, old }) => {
    const vault = dirname(old);
    await age(stack, old);
    const before = await runsIn(old);
    await $({ quiet: true })`mount -t tmpfs tmpfs ${vault}`;
    try {
      for (const verb of ["deploy", "rollback"] as const) {
        const run = await stack[verb]();
        assert.is(run.exitCode, 1, run.stdall);
        assert.match(run.stderr, `The vault ${vault} is empty, but earlier releases used it`);
        assert.match(run.stderr, `not migrated from ${old}`);
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

migration("a link in the place of the old folder only puts it off", async ({ stack, old }) => {
  await age(stack, old);
  const before = await runsIn(old);
  await inside(stack, `cd /vault && mv _build aside && ln -s ${stack.folder} _build`);
  const blocked = await stack.rollback();
  assert.is(blocked.exitCode, 0, blocked.stdall);
  assert.match(blocked.stderr, /not migrated from .*; the next run tries again/);
  await inside(stack, "cd /vault && rm _build && mv aside _build");
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  const runs = await runsIn(stack.stateDir);
  assert.equal(runs.slice(0, before.length), before);
  assert.is(runs.length, before.length + 2);
  await backToBlue(stack);
});

migration(
  "links that a container has put in the place of the old files are not followed",
  async ({ stack, old }) => {
    await age(stack, old);
    const outside = join(stack.folder, "outside");
    await mkdir(outside);
    for (const name of Object.values(OLD_NAMES)) {
      await writeFile(join(outside, name), `{"time":"","verb":"secret","result":"","message":""}\n`);
      await rm(join(old, name));
      await symlink(join(outside, name), join(old, name));
    }
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, "history.jsonl was not migrated: Error: ELOOP");
    for (const name of await readdir(stack.stateDir))
      assert.not.match(await readFile(join(stack.stateDir, name), "utf8"), '"secret"');
    for (const name of Object.values(OLD_NAMES)) {
      assert.match(await readFile(join(outside, name), "utf8"), '"secret"');
      await rm(join(old, name));
    }
    await backToBlue(stack);
  },
);

migration("files that another project may have used are copied, and stay", async ({ stack, old }) => {
  await age(stack, old);
  const before = (await readdir(old)).toSorted();
  const run = await stack.deploy([], { ACTIVE_COLOR_FILE: "" }); // the default, of a project other than loop
  assert.is(run.exitCode, 0, run.stdall);
  assert.not.match(run.stderr, "no run has verified it"); // the mark came along
  const own = `.active-color.${stack.project}`;
  assert.match(
    run.stdout,
    `from now on, the state file of ${stack.project} is ${join(old, own)}, not ${stack.stateFile}`,
  );
  assert.equal((await readdir(old)).toSorted(), [...before, own].toSorted());
  assert.is(await readFile(join(old, own), "utf8"), "green\n");
  assert.is(await stack.readStateFile(), "blue\n", "another project's state file was written");
  for (const name of [own, ...Object.values(OLD_NAMES)]) await rm(join(old, name));
  await backToBlue(stack);
});

migration("killed at any instant of it, nothing is lost", async ({ stack, old }) => {
  await age(stack, old);
  const before = await runsIn(old);
  for (let i = 0; i < 12; i++) {
    const since = Date.now();
    const run = startRun(stack, "rollback");
    await waitForLock(stack, since); // what it does next is to take over
    await sleep(i * 2);
    run.kill("SIGKILL");
    await run.ended;
  }
  const run = await stack.deploy(["--keep", "serving"]);
  assert.is(run.exitCode, 0, run.stdall);
  const after = (await runsIn(stack.stateDir)).map((entry) => JSON.stringify(entry));
  for (const entry of before) assert.ok(after.includes(JSON.stringify(entry)), JSON.stringify(entry));
  assert.equal(await readdir(old), [".active-color"]);
});
migration.run();
