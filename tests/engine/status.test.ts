import { appendFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun, waitForLock } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { Status } from "../../lib/release/status-report.ts";
import { readHistory } from "../../lib/run/history.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

const status = suite<{ stack: Scratch }>("status");
status.before(async (context) => {
  context.stack = await createScratch("status");
});
status.after(({ stack }) => stack.remove());

async function readStatus(
  stack: Scratch,
  env: Record<string, string> = {},
): Promise<Status & { exitCode: number | null }> {
  const { stdout, exitCode } = await stack.status(["--json"], env);
  return { ...Status.parse(JSON.parse(stdout)), exitCode };
}

status(
  "on an empty machine, status reports that neither color serves, exits with 1 and creates nothing",
  async ({ stack }) => {
    const { exitCode, serving, colors, nginx, run, runs, drift } = await readStatus(stack);
    assert.equal([exitCode, serving, nginx, run, runs], [1, null, "absent", null, []]);
    assert.equal([colors.blue.container, colors.green.container], ["absent", "absent"]);
    assert.ok(drift.some((line) => line.startsWith("no healthy response through nginx: no response")));
    assert.is(await stack.readStateFile(), "no file");
    assert.is((await stack.docker("ps", "-aq", "--filter", `name=${stack.project}`)).stdout, "");
  },
);

/** Creates a git checkout of the example API. Returns it as a setting, and its commit. */
async function createCheckout(stack: Scratch): Promise<[Record<string, string>, string]> {
  const env = await stack.apiVersion("5.0.0");
  const git = $({ quiet: true, cwd: env.LOOP_API_CONTEXT ?? "" });
  await git`git init -q && git add . && git -c user.name=t -c user.email=t@localhost commit -qm one`;
  return [env, (await git`git rev-parse HEAD`).stdout.trim()];
}

status(
  "after two releases, status shows the serving color, its source revision and both runs",
  async ({ stack }) => {
    const [source, commit] = await createCheckout(stack);
    assert.is((await stack.deploy()).exitCode, 0);
    assert.is((await stack.deploy([], source)).exitCode, 0);
    const report = await readStatus(stack);
    assert.equal([report.exitCode, report.serving, report.drift], [0, "blue", []]);
    assert.equal([report.colors.blue.health, report.colors.blue.revision], ["healthy", commit]);
    assert.equal([report.colors.green.container, report.colors.green.health], ["exited", null]);
    assert.equal(
      report.runs.map(({ verb, from, to, result }) => [verb, from, to, result]),
      [
        ["deploy", "green", "blue", "done"],
        ["deploy", "blue", "green", "done"],
      ],
    );
    assert.equal([report.runs[0]?.revision, report.runs[0]?.image], [commit, report.colors.blue.image]);
    assert.ok((report.runs[0]?.steps?.["switch nginx to blue"] ?? 0) > 0);
    const { stdout } = await stack.status();
    assert.match(stdout, "blue serves, seen through nginx");
    assert.match(stdout, "everything agrees");
    assert.match(stdout, commit.slice(0, 10));
    assert.match(stdout, /deploy {4}green → blue {3}done {10}\d+\.\d s/);
  },
);

status("disagreements are reported with exit code 1 and not changed", async ({ stack }) => {
  const link = join(stack.folder, "nginx/active-upstream.conf");
  await replaceLink(link, "green-upstream.conf");
  await writeFile(stack.stateFile, "green\n");
  await stack.compose("up", "-d", "--no-recreate", "loop-api-green");
  const { exitCode, serving, link: linked, stateFile, drift } = await readStatus(stack);
  assert.equal([exitCode, serving, linked, stateFile], [1, "blue", "green", "green"]);
  assert.equal(drift, [
    "both colors run",
    "the active link points at green, nginx serves blue",
    "the state file says green, nginx serves blue",
  ]);
  assert.equal([await stack.running(), await stack.readStateFile()], [["blue", "green"], "green\n"]);
  await stack.docker("stop", `${stack.project}-api-green`);
  assert.is((await stack.deploy([], { LOOP_API_CONTEXT: join(stack.folder, "nginx") })).exitCode, 1); // repairs, then fails without a Dockerfile
  assert.equal((await readStatus(stack)).drift, []);
});

status("a run in progress is no disagreement; a killed run is", async ({ stack }) => {
  const since = Date.now();
  const run = startRun(stack, "rollback", { VERIFY_SECONDS: "10" });
  await waitForLock(stack, since);
  await run.waitForStep("switch nginx to green");
  const during = await readStatus(stack);
  assert.equal([during.run?.held, during.run?.verb, during.drift], [true, "rollback", []]);
  assert.match((await stack.status()).stdout, "not checked while a run is in progress");
  run.kill("SIGKILL");
  await run.ended;
  const after = await readStatus(stack);
  assert.is(after.exitCode, 1);
  assert.match(after.drift.join(), /the rollback of \S+ was killed/);
  assert.is((await stack.rollback()).exitCode, 0);
  const { drift, runs } = await readStatus(stack);
  assert.equal(drift, []);
  assert.equal(
    runs.slice(0, 2).map(({ verb, result }) => [verb, result]),
    [
      ["rollback", "done"],
      ["rollback", "killed"],
    ],
  );
});

status("without Docker or the vault, status reports that and shows the rest", async ({ stack }) => {
  const without = await readStatus(stack, { DOCKER_HOST: `unix://${stack.folder}/none.sock` });
  assert.equal([without.exitCode, without.serving, without.nginx], [1, "green", "unknown"]);
  assert.equal([without.colors.blue.container, without.runs.length], ["unknown", 5]);
  assert.match(without.drift.join(), /Docker failed while inspecting/);
  const unmounted = await readStatus(stack, { VAULT_PATH: "/not/mounted" });
  assert.equal([unmounted.exitCode, unmounted.serving], [1, "green"]);
  assert.match(unmounted.drift.join(), "the vault /not/mounted does not exist");
});

status("the container of a failed release is distinguished from one on standby", async ({ stack }) => {
  const { serving, colors } = await readStatus(stack);
  const idle = serving === "blue" ? "green" : "blue";
  assert.not(colors[idle].failed);
  assert.is((await stack.deploy([], { LOOP_FAULT: "exit" })).exitCode, 1);
  assert.ok((await readStatus(stack)).colors[idle].failed);
  assert.match((await stack.status()).stdout, `failed release`);
});

status(
  "a truncated history is read up to its last complete line; an unknown option exits with 2",
  async ({ stack }) => {
    const file = join(stack.stateDir, "history.jsonl");
    const complete = await readFile(file, "utf8");
    await appendFile(file, '{"time":"20');
    assert.is((await readStatus(stack)).runs.length, 5);
    assert.is((await readHistory(file)).length, complete.trim().split("\n").length);
    await rm(file);
    assert.equal((await readStatus(stack)).runs, []);
    const wrong = await stack.status(["--jsn"]);
    assert.is(wrong.exitCode, 2);
    assert.match(wrong.stderr, "--jsn");
  },
);
status.run();
