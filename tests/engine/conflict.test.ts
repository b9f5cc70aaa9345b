import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { locked, type Run, startRun } from "../../bench/testbed/killed.ts";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";

/** What a killed run has left, where it takes more than to look at what nginx serves. Blue serves at the start of each. */
const leftovers = suite<{ stack: Scratch }>("what a killed run has left");
leftovers.before(async (context) => {
  context.stack = await createScratch("conflict");
  for (let i = 1; i <= 2; i++) {
    const run = await context.stack.deploy([], await context.stack.apiVersion(`${i}.0.0`));
    assert.is(run.exitCode, 0, run.stdall);
  }
});
leftovers.after(({ stack }) => stack.remove());

async function killAfter(stack: Scratch, step: string, env: Record<string, string>): Promise<Run> {
  const since = Date.now();
  const run = startRun(stack, "deploy", env);
  await locked(stack, since);
  await run.passed(step);
  run.kill("SIGKILL");
  await run.ended;
  return run;
}

const served = async (stack: Scratch): Promise<[string, string]> => {
  const { color, body } = await stack.front();
  return [color, JSON.parse(body).version];
};

leftovers(
  "a sick release that was cut off in its verification: the next plain run takes it back",
  async ({ stack }) => {
    await killAfter(stack, "switch", { LOOP_FAULT: "sick-after=4", VERIFY_SECONDS: "30" });
    await waitFor("green is sick", async () => JSON.parse((await stack.front()).body).status !== "healthy");
    const run = await stack.deploy(["--quiet"], await stack.apiVersion("3.0.0"));
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, "neither color serves, but blue is healthy: switching nginx to it");
    assert.equal(await served(stack), ["green", "3.0.0"]);
    assert.equal([await stack.running(), await stack.marked()], [["green"], "green\n"]);
    assert.is((await stack.rollback()).exitCode, 0);
    assert.equal(await served(stack), ["blue", "2.0.0"]);
  },
);

leftovers(
  "the image before was pruned meanwhile: it is said, and does not keep later runs from their work",
  async ({ stack }) => {
    await killAfter(stack, "start", await stack.apiVersion("4.0.0"));
    await stack.docker(
      "image",
      "prune",
      "--force",
      "--filter",
      `label=com.docker.compose.project=${stack.project}`,
    );
    const rollback = await stack.rollback();
    assert.is(rollback.exitCode, 1, rollback.stdall);
    assert.match(rollback.stderr, "is gone: you cannot roll back to");
    assert.match(rollback.stderr, "There is nothing to roll back to");
    assert.equal(await served(stack), ["blue", "2.0.0"]);
    const deploy = await stack.deploy([], await stack.apiVersion("5.0.0"));
    assert.is(deploy.exitCode, 0, deploy.stdall);
    assert.not.match(deploy.stderr, "killed before");
    assert.is((await stack.rollback()).exitCode, 0);
    assert.equal(await served(stack), ["blue", "2.0.0"]);
  },
);

leftovers(
  "a build that was cut off leaves the container of the last good release as it was",
  async ({ stack }) => {
    const id = await stack.field(`${stack.project}-api-green`, "{{.Id}}");
    const since = Date.now();
    const cutOff = startRun(stack, "deploy", await stack.apiVersion("6.0.0"));
    await locked(stack, since);
    while (!(await readFile(join(stack.stateDir, "lock"), "utf8")).includes('"to":"green"')) await sleep(2);
    cutOff.kill("SIGKILL"); // it has said what it is about, and builds
    await cutOff.ended;
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.equal(await served(stack), ["green", "5.0.0"]);
    assert.is(await stack.field(`${stack.project}-api-green`, "{{.Id}}"), id);
    assert.is((await stack.rollback()).exitCode, 0);
  },
);

/** It boots longer than a run waits for the marked color, which it prefers. */
const SLOW_START = { LOOP_FAULT: "slow-start=25", HEALTH_RETRIES: "60" };

leftovers(
  "a release that was marked and then cut off stands, also when it is not the one that is well afterwards",
  async ({ stack }) => {
    const release = { ...(await stack.apiVersion("7.0.0")), ...SLOW_START, DRAIN_SECONDS: "2" };
    const since = Date.now();
    const run = startRun(stack, "deploy", release);
    await locked(stack, since);
    await run.passed("start green");
    const params = { name: "slow", arguments: { seconds: 20 } };
    const open = request(`http://127.0.0.1:${stack.env.NGINX_PORT}/mcp`, {
      method: "POST",
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params }),
    }).then(
      ({ body }) => body.dump(),
      () => undefined, // it is cut at the end of the next run's drain
    );
    await run.passed("mark green as active");
    run.kill("SIGKILL"); // it waits for the slow call
    await run.ended;
    await stack.docker("restart", "--time", "0", `${stack.project}-api-green`); // as the host does
    await waitFor("green is away", async () => (await stack.front()).status !== 200);
    const next = await stack.deploy([], await stack.apiVersion("8.0.0"));
    await open;
    assert.is(next.exitCode, 0, next.stdall);
    assert.match(next.stderr, "was killed before it finished");
    assert.match(next.stderr, "neither color serves, but blue is healthy: switching nginx to it");
    assert.not.match(next.stdout, "restore the previous image of green");
    if ((await stack.front()).color === "green") assert.is((await stack.rollback()).exitCode, 0);
  },
);

leftovers("both started by hand are not a killed run's: it still asks", async ({ stack }) => {
  await stack.compose("--profile", "green", "up", "-d", "--no-recreate", "loop-api-green");
  const run = await stack.deploy();
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "Both blue and green are running");
  assert.equal(await stack.running(), ["blue", "green"]);
});
leftovers.run();
