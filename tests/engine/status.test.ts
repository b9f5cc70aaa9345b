import { appendFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { locked, startRun } from "../../bench/testbed/killed.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { Status } from "../../lib/release/status.ts";
import { readHistory } from "../../lib/run/history.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

const status = suite<{ stack: Scratch }>("status");
status.before(async (context) => {
  context.stack = await createScratch("status");
});
status.after(({ stack }) => stack.remove());

async function json(
  stack: Scratch,
  env: Record<string, string> = {},
): Promise<Status & { exitCode: number | null }> {
  const { stdout, exitCode } = await stack.look(["--json"], env);
  return { ...Status.parse(JSON.parse(stdout)), exitCode };
}

status("on an empty machine: nothing serves, exit 1, and nothing is made", async ({ stack }) => {
  const { exitCode, serving, colors, nginx, run, runs, drift } = await json(stack);
  assert.equal([exitCode, serving, nginx, run, runs], [1, null, "absent", null, []]);
  assert.equal([colors.blue.container, colors.green.container], ["absent", "absent"]);
  assert.ok(drift.some((line) => line.startsWith("no healthy response through nginx: no response")));
  assert.is(await stack.marked(), "no file");
  assert.is((await stack.docker("ps", "-aq", "--filter", `name=${stack.project}`)).stdout, "");
});

/** A checkout with the example API in it. */
async function checkout(stack: Scratch): Promise<[Record<string, string>, string]> {
  const env = await stack.apiVersion("5.0.0");
  const git = $({ quiet: true, cwd: env.LOOP_API_CONTEXT ?? "" });
  await git`git init -q && git add . && git -c user.name=t -c user.email=t@localhost commit -qm one`;
  return [env, (await git`git rev-parse HEAD`).stdout.trim()];
}

status("after two releases: what serves, from which source, and what both runs were", async ({ stack }) => {
  const [source, commit] = await checkout(stack);
  assert.is((await stack.deploy()).exitCode, 0);
  assert.is((await stack.deploy([], source)).exitCode, 0);
  const seen = await json(stack);
  assert.equal([seen.exitCode, seen.serving, seen.drift], [0, "blue", []]);
  assert.equal([seen.colors.blue.health, seen.colors.blue.revision], ["healthy", commit]);
  assert.equal([seen.colors.green.container, seen.colors.green.health], ["exited", null]);
  assert.equal(
    seen.runs.map(({ verb, from, to, result }) => [verb, from, to, result]),
    [
      ["deploy", "green", "blue", "done"],
      ["deploy", "blue", "green", "done"],
    ],
  );
  assert.equal([seen.runs[0]?.revision, seen.runs[0]?.image], [commit, seen.colors.blue.image]);
  assert.ok((seen.runs[0]?.steps?.["switch nginx to blue"] ?? 0) > 0);
  const { stdout } = await stack.look();
  assert.match(stdout, "blue serves, seen through nginx");
  assert.match(stdout, "all agree");
  assert.match(stdout, commit.slice(0, 10));
  assert.match(stdout, /deploy {4}green → blue {3}done {10}\d+\.\d s/);
});

status("what disagrees is said, exit 1, and left as it is", async ({ stack }) => {
  const link = join(stack.folder, "nginx/active-upstream.conf");
  await replaceLink(link, "green-upstream.conf");
  await writeFile(stack.stateFile, "green\n");
  await stack.compose("up", "-d", "--no-recreate", "loop-api-green");
  const { exitCode, serving, link: linked, stateFile, drift } = await json(stack);
  assert.equal([exitCode, serving, linked, stateFile], [1, "blue", "green", "green"]);
  assert.equal(drift, [
    "both colors run",
    "the active link points at green, nginx serves blue",
    "the state file says green, nginx serves blue",
  ]);
  assert.equal([await stack.running(), await stack.marked()], [["blue", "green"], "green\n"]);
  await stack.docker("stop", `${stack.project}-api-green`);
  assert.is((await stack.deploy([], { LOOP_API_CONTEXT: join(stack.folder, "nginx") })).exitCode, 1); // sets right, then has nothing to build
  assert.equal((await json(stack)).drift, []);
});

status("a run at work is no disagreement; one that was killed is", async ({ stack }) => {
  const since = Date.now();
  const run = startRun(stack, "rollback", { VERIFY_SECONDS: "10" });
  await locked(stack, since);
  await run.passed("switch nginx to green");
  const during = await json(stack);
  assert.equal([during.run?.held, during.run?.verb, during.drift], [true, "rollback", []]);
  assert.match((await stack.look()).stdout, "not compared");
  run.kill("SIGKILL");
  await run.ended;
  const after = await json(stack);
  assert.is(after.exitCode, 1);
  assert.match(after.drift.join(), /the rollback of \S+ was killed/);
  assert.is((await stack.deploy()).exitCode, 0);
  const { drift, runs } = await json(stack);
  assert.equal(drift, []);
  assert.equal(
    runs.slice(0, 2).map(({ verb, result }) => [verb, result]),
    [
      ["deploy", "done"],
      ["rollback", "killed"],
    ],
  );
});

status("without Docker, or the vault, it says so and tells the rest", async ({ stack }) => {
  const without = await json(stack, { DOCKER_HOST: `unix://${stack.folder}/none.sock` });
  assert.equal([without.exitCode, without.serving, without.nginx], [1, "blue", "unknown"]);
  assert.equal([without.colors.blue.container, without.runs.length], ["unknown", 5]);
  assert.match(without.drift.join(), /Docker failed while inspecting/);
  const unmounted = await json(stack, { VAULT_PATH: "/not/mounted" });
  assert.equal([unmounted.exitCode, unmounted.serving], [1, "blue"]);
  assert.match(unmounted.drift.join(), "the vault /not/mounted does not exist");
});

status("a container of a release that failed is told from a standby", async ({ stack }) => {
  const { serving, colors } = await json(stack);
  const idle = serving === "blue" ? "green" : "blue";
  assert.not(colors[idle].failed);
  assert.is((await stack.deploy([], { LOOP_FAULT: "exit" })).exitCode, 1);
  assert.ok((await json(stack)).colors[idle].failed);
  assert.match((await stack.look()).stdout, `failed release`);
});

status("a torn history is read as far as it goes; an unknown option exits 2", async ({ stack }) => {
  const file = join(stack.stateDir, "history.jsonl");
  const whole = await readFile(file, "utf8");
  await appendFile(file, '{"time":"20');
  assert.is((await json(stack)).runs.length, 5);
  assert.is((await readHistory(file)).length, whole.trim().split("\n").length);
  await rm(file);
  assert.equal((await json(stack)).runs, []);
  const wrong = await stack.look(["--jsn"]);
  assert.is(wrong.exitCode, 2);
  assert.match(wrong.stderr, "--jsn");
});
status.run();
