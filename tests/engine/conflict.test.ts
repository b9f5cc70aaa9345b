import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { type Run, startRun, waitForLock } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";

/** Recovery of killed runs, in cases where the serving color alone does not decide. */
const recovery = suite<{ stack: Scratch }>("recovery of a killed run");
recovery.before(async (context) => {
  context.stack = await createReleasedScratch("conflict");
});
recovery.after(({ stack }) => stack.remove());

async function killAfter(stack: Scratch, step: string, env: Record<string, string>): Promise<Run> {
  const since = Date.now();
  const run = startRun(stack, "deploy", env);
  await waitForLock(stack, since);
  await run.waitForStep(step);
  run.kill("SIGKILL");
  await run.ended;
  return run;
}

const servingVersion = async (stack: Scratch): Promise<[string, string]> => {
  const { color, body } = await stack.get();
  return [color, JSON.parse(body).version];
};

recovery("a killed build leaves the container of the previous release unchanged", async ({ stack }) => {
  const id = await stack.field(`${stack.project}-api-green`, "{{.Id}}");
  const since = Date.now();
  const killed = startRun(stack, "deploy", await stack.apiVersion("6.0.0"));
  await waitForLock(stack, since);
  while (!(await readFile(join(stack.stateDir, "lock"), "utf8")).includes('"to":"green"')) await sleep(2);
  killed.kill("SIGKILL"); // it has written its run record, and builds
  await killed.ended;
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  assert.equal(await servingVersion(stack), ["green", "1.0.0"]);
  assert.is(await stack.field(`${stack.project}-api-green`, "{{.Id}}"), id);
});

recovery(
  "an unhealthy release that was killed during its verification is undone by the next run",
  async ({ stack }) => {
    await killAfter(stack, "switch", { LOOP_FAULT: "sick-after=4", VERIFY_SECONDS: "30" });
    await waitFor("blue is unhealthy", async () => JSON.parse((await stack.get()).body).status !== "healthy");
    const run = await stack.deploy(["--quiet"], { LOOP_API_CONTEXT: stack.folder }); // its build fails
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "neither color serves, but green is healthy: switching nginx to it");
    assert.equal(await servingVersion(stack), ["green", "1.0.0"]);
    assert.equal([await stack.running(), await stack.readStateFile()], [["green"], "green\n"]);
  },
);

recovery("a pruned previous image is reported", async ({ stack }) => {
  await killAfter(stack, "start", await stack.apiVersion("4.0.0"));
  await stack.docker(
    "image",
    "prune",
    "--all", // its release number would keep it
    "--force",
    "--filter",
    `label=com.docker.compose.project=${stack.project}`,
  );
  const rollback = await stack.rollback();
  assert.is(rollback.exitCode, 1, rollback.stdall);
  assert.match(rollback.stderr, "is gone: you cannot roll back to");
  assert.match(rollback.stderr, "There is nothing to roll back to");
  assert.equal(await servingVersion(stack), ["green", "1.0.0"]);
});

recovery(
  "a pruned previous image does not block a release, which stands although it was killed after its mark and is not the healthy color afterward",
  async ({ stack }) => {
    const sick = { LOOP_FAULT: "sick-after=12", DRAIN_SECONDS: "2" };
    const release = { ...(await stack.apiVersion("7.0.0")), ...sick };
    const since = Date.now();
    const run = startRun(stack, "deploy", release);
    await waitForLock(stack, since);
    await run.waitForStep("start blue");
    const params = { name: "slow", arguments: { seconds: 20 } };
    const open = request(`http://127.0.0.1:${stack.env.NGINX_PORT}/mcp`, {
      method: "POST",
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params }),
    }).then(
      ({ body }) => body.dump(),
      () => undefined, // it is interrupted at the end of the next run's drain
    );
    await run.waitForStep("mark blue as active");
    run.kill("SIGKILL"); // while it waits for the slow call
    assert.not.match((await run.ended).output, "killed before");
    await waitFor(
      "blue is unhealthy",
      async () => JSON.parse((await stack.get()).body).status !== "healthy",
      15,
    );
    const next = await stack.deploy([], await stack.apiVersion("8.0.0"));
    await open;
    assert.is(next.exitCode, 0, next.stdall);
    assert.match(next.stderr, "was killed before it finished");
    assert.match(next.stderr, "neither color serves, but green is healthy: switching nginx to it");
    assert.not.match(next.stdout, "restore the previous image of blue");
  },
);

recovery(
  "two colors that were started by hand are not taken for those of a killed run",
  async ({ stack }) => {
    const idle = (await stack.get()).color === "blue" ? "green" : "blue";
    await stack.compose("--profile", "green", "up", "-d", "--no-recreate", `loop-api-${idle}`);
    const run = await stack.deploy();
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "Both blue and green are running");
    assert.equal(await stack.running(), ["blue", "green"]);
  },
);
recovery.run();
