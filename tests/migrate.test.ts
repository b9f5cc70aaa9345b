import { spawn } from "node:child_process";
import { appendFile, mkdir, open, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { readHistory } from "../lib/history.ts";
import { locked, startRun } from "./killed.ts";
import { createReleased, type Scratch } from "./scratch.ts";
import { suite } from "./suite.ts";

/** Blue serves at the start of each, and green stands by. */
const migration = suite<{ stack: Scratch; old: string }>("taking over the state of an older version");
migration.before(async (context) => {
  context.stack = await createReleased("migrate", { HEALTH_RETRIES: "60" });
  context.old = dirname(context.stack.stateFile);
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

async function backToBlue(stack: Scratch): Promise<void> {
  if ((await stack.front()).color === "green") {
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
  }
  assert.equal(
    [(await stack.front()).color, await stack.running(), await stack.marked()],
    ["blue", ["blue"], "blue\n"],
  );
}

migration(
  "the first run takes all of it over, says so, and removes it; a backup of it changes nothing",
  async ({ stack, old }) => {
    await age(stack, old);
    await appendFile(join(old, "history.jsonl"), '{"time":"torn');
    await appendFile(join(old, "blue-green.log"), "\u001b[2Jevil\n");
    const before = await readHistory(join(old, "history.jsonl"));
    const backup = await readFile(join(old, "history.jsonl"), "utf8");
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stdout,
      `taken over from ${old} into ${stack.stateDir}: the history of 2 runs, the log, as blue-green.log.1`,
    );
    assert.equal((await readHistory(join(stack.stateDir, "history.jsonl"))).slice(0, 2), before);
    assert.match(await readFile(join(stack.stateDir, "blue-green.log.1"), "utf8"), "\\x1b[2Jevil");
    assert.equal(await readdir(old), [".active-color"]);

    for (let i = 0; i < 3; i++) await appendFile(join(old, "history.jsonl"), backup);
    const next = await stack.rollback();
    assert.is(next.exitCode, 0, next.stdall);
    assert.not.match(next.stdout, "taken over");
    assert.is((await readHistory(join(stack.stateDir, "history.jsonl"))).length, 4);
    await rm(join(old, "history.jsonl"));
    await backToBlue(stack);
  },
);

migration("a release that the old version was killed in is put right", async ({ stack, old }) => {
  const image = await stack.docker("image", "inspect", "--format", "{{.Id}}", `${stack.project}-api:green`);
  const since = Date.now();
  const killed = startRun(stack, "deploy", await stack.apiVersion("7.7.7"));
  await locked(stack, since);
  await killed.passed("start green");
  killed.kill("SIGKILL");
  await killed.ended;
  await age(stack, old);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: stack.folder }); // nothing to build there
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stdout, /what the deploy of \S+ left to be put right/);
  assert.match(run.stdout, "✓ keep the build of green before");
  const now = await stack.docker("image", "inspect", "--format", "{{.Id}}", `${stack.project}-api:green`);
  assert.is(now.stdout, image.stdout);
  await backToBlue(stack);
});

migration(
  "a note that a container has forged does not bring a stranger's image into a release",
  async ({ stack, old }) => {
    await age(stack, old);
    const stranger = (
      await stack.docker("image", "inspect", "--format", "{{.Id}}", "nginx:1.30")
    ).stdout.trim();
    const forged = {
      verb: "deploy",
      pid: 1,
      since: "2030-01-01T00:00:00Z",
      from: "blue",
      to: "green",
      imageBefore: stranger,
      started: true,
    };
    const written = await stack.docker(
      "exec",
      `${stack.project}-api-blue`,
      "sh",
      "-c",
      `echo '${JSON.stringify(forged)}' > /vault/_build/.active-color.lock`,
    );
    assert.is(written.exitCode, 0, written.stdall);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stderr,
      `the image ${stranger} that the deploy of 2030-01-01T00:00:00Z noted is none of this project's`,
    );
    assert.equal([(await stack.front()).color, await stack.running()], ["green", ["green"]]);
    await backToBlue(stack);
  },
);

migration(
  "a run of the old version that is at work holds the lock; a container cannot",
  async ({ stack, old }) => {
    await age(stack, old);
    const file = join(old, ".active-color.lock");
    const note = (pid: number) => JSON.stringify({ verb: "deploy", pid, since: "2030-01-01T00:00:00Z" });
    const lock = await open(file, "w+");
    const atWork = spawn("sleep", ["100"], { stdio: ["ignore", "ignore", "ignore", "ignore", lock.fd] });
    await lock.writeFile(note(atWork.pid ?? 0));
    await lock.close();
    const second = await stack.rollback();
    atWork.kill("SIGKILL");
    assert.is(second.exitCode, 4, second.stdall);
    assert.match(
      second.stderr,
      `Another run holds the lock: the deploy with pid ${atWork.pid}, since 2030-01-01T00:00:00Z, of an older version`,
    );
    assert.ok((await readdir(old)).includes("history.jsonl"), "nothing was taken over yet");

    const api = `${stack.project}-api-blue`;
    await stack.docker(
      "exec",
      "-d",
      api,
      "sh",
      "-c",
      "exec 3<>/vault/_build/.active-color.lock; flock 3; exec sleep 300",
    );
    await sleep(500);
    const pids = (await stack.docker("top", api, "-o", "pid,args")).stdout;
    const holder = Number(pids.match(/(\d+)\s+sleep 300/)?.[1]);
    assert.ok(holder > 0, pids);
    await writeFile(file, note(holder));
    const since = performance.now();
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.ok(performance.now() - since < 25_000, "it waited for the container");
    assert.match(run.stdout, "the history of");
    await backToBlue(stack);
  },
);

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
    assert.match(run.stderr, "history.jsonl was not taken over: Error: ELOOP");
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
  const run = await stack.rollback([], { ACTIVE_COLOR_FILE: "" }); // the default, of a project other than loop
  assert.is(run.exitCode, 0, run.stdall);
  const own = `.active-color.${stack.project}`;
  assert.match(
    run.stdout,
    `the state file of ${stack.project} is ${join(old, own)} from now on, not ${stack.stateFile}`,
  );
  assert.equal((await readdir(old)).toSorted(), [...before, own].toSorted());
  assert.is(await readFile(join(old, own), "utf8"), "green\n");
  assert.is(await stack.marked(), "blue\n", "another project's state file was written");
  for (const name of [own, ...Object.values(OLD_NAMES)]) await rm(join(old, name));
  await backToBlue(stack);
});

migration("killed at any instant of it, nothing is lost", async ({ stack, old }) => {
  await age(stack, old);
  const before = await readHistory(join(old, "history.jsonl"));
  for (let i = 0; i < 12; i++) {
    const since = Date.now();
    const run = startRun(stack, "rollback");
    await locked(stack, since); // what it does next is to take over
    await sleep(i * 2);
    run.kill("SIGKILL");
    await run.ended;
  }
  const run = await stack.deploy(["--keep", "serving"]);
  assert.is(run.exitCode, 0, run.stdall);
  const after = (await readHistory(join(stack.stateDir, "history.jsonl"))).map((entry) =>
    JSON.stringify(entry),
  );
  for (const entry of before) assert.ok(after.includes(JSON.stringify(entry)), JSON.stringify(entry));
  assert.equal(await readdir(old), [".active-color"]);
});
migration.run();
