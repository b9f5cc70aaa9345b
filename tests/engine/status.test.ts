import { appendFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun, waitForLock } from "../../bench/testbed/run.ts";
import { createReleasedScratch, createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { Status } from "../../lib/release/status-report.ts";
import { describeStatus } from "../../lib/release/status-text.ts";
import { readHistory } from "../../lib/run/history.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

const status = suite<{ stack: Scratch }>("status");
status.before(async (context) => {
  context.stack = await createReleasedScratch("status");
});
status.after(({ stack }) => stack.remove());

async function readStatus(
  stack: Scratch,
  env: Record<string, string> = {},
): Promise<Status & { exitCode: number | null }> {
  const { stdout, exitCode } = await stack.status(["--json"], env);
  return { ...Status.parse(JSON.parse(stdout)), exitCode };
}

status("on an empty machine, status reports no serving color, exits with 1 and creates nothing", async () => {
  const stack = await createScratch("status-empty");
  const { exitCode, ...report } = await readStatus(stack);
  const { serving, colors, nginx, run, runs, drift } = report;
  assert.equal([exitCode, serving, nginx, run, runs], [1, null, "absent", null, []]);
  assert.match(describeStatus(report), "not released yet");
  assert.equal([colors.blue.container, colors.green.container], ["absent", "absent"]);
  assert.ok(drift.some((line) => line.startsWith("no healthy response through nginx: no response")));
  assert.is(await stack.readStateFile(), "no file");
  assert.is((await stack.docker("ps", "-aq", "--filter", `name=${stack.project}`)).stdout, "");
  await stack.remove();
});

/** Creates a git checkout of the example API. Returns it as a setting, and its commit. */
async function createCheckout(stack: Scratch): Promise<[Record<string, string>, string]> {
  const env = await stack.apiVersion("5.0.0");
  const git = $({ quiet: true, cwd: env.LOOP_API_CONTEXT ?? "" });
  await git`git init -q && git add . && git -c user.name=t -c user.email=t@localhost commit -qm one`;
  return [env, (await git`git rev-parse HEAD`).stdout.trim()];
}

status(
  "after a release, status shows the serving color, its source revision, the color on standby and the last runs",
  async ({ stack }) => {
    const [source, commit] = await createCheckout(stack);
    assert.is((await stack.deploy([], source)).exitCode, 0);
    const { exitCode, ...report } = await readStatus(stack);
    assert.equal([exitCode, report.serving, report.drift], [0, "green", []]);
    const { green, blue } = report.colors;
    assert.equal([green.health, green.revision], ["healthy", commit]);
    assert.equal([blue.container, blue.health, blue.failed], ["exited", null, false]);
    assert.equal(
      report.runs.map(({ verb, from, to, result }) => [verb, from, to, result]),
      [
        ["deploy", "blue", "green", "done"],
        ["deploy", "green", "blue", "done"],
        ["deploy", "blue", "green", "done"],
      ],
    );
    assert.equal([report.runs[0]?.revision, report.runs[0]?.image], [commit, green.image]);
    assert.ok((report.runs[0]?.steps?.["switch nginx to green"] ?? 0) > 0);
    const text = describeStatus(report);
    assert.match(text, "green serves, seen through nginx");
    assert.match(text, "everything agrees");
    assert.match(text, commit.slice(0, 10));
    assert.match(text, /deploy {4}blue → green {3}done {10}\d+\.\d s/);
  },
);

status("disagreements are reported with exit code 1 and not changed", async ({ stack }) => {
  await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), "blue-upstream.conf");
  await writeFile(stack.stateFile, "blue\n");
  await stack.docker("start", `${stack.project}-api-blue`);
  const { exitCode, serving, link: linked, stateFile, drift } = await readStatus(stack);
  assert.equal([exitCode, serving, linked, stateFile], [1, "green", "blue", "blue"]);
  assert.equal(drift, [
    "both colors run",
    "the active link points at blue, nginx serves green",
    "the state file says blue, nginx serves green",
  ]);
  assert.equal([await stack.running(), await stack.readStateFile()], [["blue", "green"], "blue\n"]);
  await stack.docker("stop", `${stack.project}-api-blue`);
});

status("a run in progress is no disagreement; a killed run is", async ({ stack }) => {
  const since = Date.now();
  const run = startRun(stack, "rollback", { VERIFY_SECONDS: "10" });
  await waitForLock(stack, since);
  await run.waitForStep("switch nginx to blue");
  const { exitCode, ...during } = await readStatus(stack);
  assert.equal([exitCode, during.run?.held, during.run?.verb, during.drift], [0, true, "rollback", []]);
  assert.match(describeStatus(during), "not checked while a run is in progress");
  run.kill("SIGKILL");
  await run.ended;
  const after = await readStatus(stack);
  assert.is(after.exitCode, 1);
  assert.match(after.drift.join(), /the rollback of \S+ was killed/);
});

status(
  "after the next run everything agrees, and the list shows the killed run before it",
  async ({ stack }) => {
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
  },
);

status(
  "without Docker and the vault, and with a truncated history, status reports that and shows the rest: the last five complete runs",
  async ({ stack }) => {
    const file = join(stack.stateDir, "history.jsonl");
    const complete = await readFile(file, "utf8");
    await appendFile(file, `${complete}{"time":"20`);
    assert.is((await readHistory(file)).length, 2 * complete.trim().split("\n").length);
    const { exitCode, serving, nginx, colors, runs, drift } = await readStatus(stack, {
      DOCKER_HOST: `unix://${stack.folder}/none.sock`,
      VAULT_PATH: "/not/mounted",
    });
    assert.equal([exitCode, serving, nginx], [1, "blue", "unknown"]);
    assert.equal([colors.blue.container, runs.length], ["unknown", 5]);
    assert.match(drift.join(), /Docker failed while inspecting/);
    assert.match(drift.join(), "the vault /not/mounted does not exist");
  },
);

status("an unknown option exits with 2", async ({ stack }) => {
  const wrong = await stack.status(["--jsn"]);
  assert.is(wrong.exitCode, 2);
  assert.match(wrong.stderr, "--jsn");
});
status.run();
