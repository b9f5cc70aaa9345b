import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { type Run, startRun, type Verb } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

/** Which build serves after a run was killed. At the start of each test blue serves 2.0.0, and green has 1.0.0 on standby. */
const proof = suite<{ stack: Scratch }>("proof of the serving color");
proof.before(async (context) => {
  context.stack = await createScratch("proof");
  for (const version of ["1.0.0", "2.0.0"]) await release(context.stack, version);
});
proof.after(({ stack }) => stack.remove());

async function release(stack: Scratch, version: string): Promise<string> {
  const run = await stack.deploy([], await stack.apiVersion(version));
  assert.is(run.exitCode, 0, run.stdall);
  return run.stderr;
}

async function assertServes(stack: Scratch, color: string, version: string): Promise<void> {
  const { color: served, body } = await stack.get();
  assert.equal(
    [served, JSON.parse(body).version, await stack.running(), await stack.readStateFile()],
    [color, version, [color], `${color}\n`],
  );
}

async function rollBack(stack: Scratch): Promise<string> {
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  return run.stdall;
}

/** Restores the initial state: blue serves 2.0.0, and green has 1.0.0. */
async function resetVersions(stack: Scratch): Promise<void> {
  if ((await stack.get()).color === "green") await release(stack, "2.0.0");
  await release(stack, "1.0.0");
  await release(stack, "2.0.0");
  await assertServes(stack, "blue", "2.0.0");
}

/** Starts a run and kills it right after the switch, before anything is verified. */
async function killAfterSwitch(stack: Scratch, verb: Verb, env: Record<string, string> = {}): Promise<Run> {
  const run = startRun(stack, verb, { VERIFY_SECONDS: "30", ...env });
  await run.waitForStep("switch nginx");
  run.kill("SIGKILL");
  await run.ended;
  assert.is((await stack.get()).color, "green");
  return run;
}

const imageOf = (stack: Scratch, color: string) => stack.field(`${stack.project}-api:${color}`, "{{.Id}}");
const lockFile = ({ stateDir }: Scratch): string => join(stateDir, "lock");

const WEEKS_AGO = "2026-01-01T03:00:00.000Z";

/** Changes facts in the run record. */
async function changeRecord(stack: Scratch, facts: Record<string, unknown>): Promise<void> {
  const text = await readFile(lockFile(stack), "utf8");
  const record = text.trim() === "" ? { verb: "rollback", pid: 1 } : JSON.parse(text);
  await writeFile(lockFile(stack), JSON.stringify({ ...record, ...facts }).padEnd(512));
}

proof(
  "a deploy that was killed before it was marked is undone by the next run, although it looks healthy",
  async ({ stack }) => {
    const good = await imageOf(stack, "blue");
    await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
    const output = await release(stack, "4.0.0");
    assert.match(output, "green serves, but its release was never fully verified: going back to blue");
    await assertServes(stack, "green", "4.0.0");
    assert.is(await imageOf(stack, "blue"), good, "the only build to roll back to was overwritten");
    await rollBack(stack);
    await assertServes(stack, "blue", "2.0.0");
    await resetVersions(stack);
  },
);

proof("the marked color is started again if it was stopped in the meantime", async ({ stack }) => {
  await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
  await stack.docker("stop", "--time", "1", `${stack.project}-api-blue`);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") }); // no Dockerfile
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stdout, /✓ start blue[\s\S]*✓ switch nginx back to blue[\s\S]*✓ drain green/);
  await assertServes(stack, "blue", "2.0.0");
});

proof("a rollback after a killed deploy goes back to the marked color, not further", async ({ stack }) => {
  await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
  assert.match(await rollBack(stack), "Rolled back, from an interrupted release: green → blue");
  await assertServes(stack, "blue", "2.0.0");
  await rollBack(stack);
  await assertServes(stack, "green", "1.0.0"); // the discarded build cannot be reached
  await rollBack(stack);
});

proof("a killed deploy that had recorded its verification stands", async ({ stack }) => {
  await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
  await changeRecord(stack, { verified: true });
  const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "blue is marked as active, but green serves and was verified: marking green");
  await assertServes(stack, "green", "3.0.0");
  await rollBack(stack);
  await resetVersions(stack);
});

proof(
  "if the marked color is gone, the serving color is verified in full, or the run exits with 3 and builds nothing",
  async ({ stack }) => {
    const blue = `${stack.project}-api-blue`;
    const green = `${stack.project}-api-green`;
    await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
    const unverified = await imageOf(stack, "green");
    await stack.docker("rm", "--force", blue);
    await stack.docker("rmi", "--force", `${stack.project}-api:blue`);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "20" });
    await run.waitForStep("find the active color");
    await stack.docker("pause", green); // it no longer responds
    const { exitCode, output } = await run.ended;
    await stack.docker("unpause", green);
    assert.is(exitCode, 3, output);
    assert.match(output, "green serves, but could not be verified, so it was not marked as active");
    assert.match(output, "There is nothing to roll back to");
    assert.match(output, `docker start ${blue} && `);
    assert.equal([await stack.readStateFile(), await imageOf(stack, "green")], ["blue\n", unverified]);
    assert.not.match(output, /✓ (build|restore|remove)/);
    await waitFor("green serves", async () => (await stack.get()).status === 200);

    const next = await release(stack, "4.0.0");
    assert.match(next, "blue cannot take over, so green is verified instead");
    await assertServes(stack, "blue", "4.0.0");
    await rollBack(stack);
    await assertServes(stack, "green", "3.0.0");
    await resetVersions(stack);
  },
);

proof(
  "a color that was switched to by hand is verified in full, or the run exits with 3; a rollback leaves it",
  async ({ stack }) => {
    const green = `${stack.project}-api-green`;
    await stack.docker("start", green);
    await waitFor("green is ready", async () => (await stack.get("/_loop/green/health")).status === 200);
    await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), "green-upstream.conf");
    await stack.docker("exec", stack.nginxContainer, "sh", "-c", "kill -HUP 1");
    await waitFor("green serves", async () => (await stack.get()).color === "green");
    await stack.docker("stop", `${stack.project}-api-blue`);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "20" });
    await run.waitForStep("find the active color");
    await stack.docker("pause", green);
    const { exitCode, output } = await run.ended;
    await stack.docker("unpause", green);
    assert.is(exitCode, 3, output);
    assert.match(output, "green serves, but no run has verified it: verifying it");
    assert.is(await stack.readStateFile(), "blue\n");
    await waitFor("green serves", async () => (await stack.get()).status === 200);

    const back = await rollBack(stack);
    assert.not.match(back, "verify green");
    await assertServes(stack, "blue", "2.0.0");
  },
);

proof(
  "if neither color serves and only the unmarked one runs, the marked color is started and stays marked",
  async (context) => {
    const { stack } = context;
    await stack.docker("stop", `${stack.project}-api-blue`);
    await stack.docker("start", `${stack.project}-api-green`);
    const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stdout, /✓ start blue[\s\S]*✓ stop green/);
    await assertServes(stack, "blue", "2.0.0");
  },
);

proof(
  "an interrupted rollback from weeks ago or from the future is not finished; a new one is made instead",
  async ({ stack }) => {
    for (const since of [WEEKS_AGO, "2999-01-01T03:00:00.000Z"]) {
      await killAfterSwitch(stack, "rollback");
      await changeRecord(stack, { since, updated: since });
      const output = await rollBack(stack);
      assert.match(output, "starting a new rollback from the serving color");
      assert.match(output, "Rolled back green → blue");
      await assertServes(stack, "blue", "2.0.0");
    }
  },
);

/** Creates a docker command that cannot stop containers. Returns it as a setting. */
async function dockerWithoutStop(stack: Scratch): Promise<Record<string, string>> {
  const file = join(stack.folder, "docker-no-stop");
  await writeFile(file, '#!/bin/sh\n[ "$1" = stop ] && exit 1\nexec docker "$@"\n', { mode: 0o755 });
  return { DOCKER_CMD: file };
}

proof(
  "a rollback that ended with exit code 3 is finished if that was recent; later, a new one is made instead",
  async ({ stack }) => {
    const halfDone = await stack.rollback([], await dockerWithoutStop(stack));
    assert.is(halfDone.exitCode, 3, halfDone.stdall);
    assert.match(await rollBack(stack), "Rolled back, finishing the interrupted run: blue → green");
    await assertServes(stack, "green", "1.0.0");
    await rollBack(stack);
    await assertServes(stack, "blue", "2.0.0");

    assert.is((await stack.rollback([], await dockerWithoutStop(stack))).exitCode, 3);
    await changeRecord(stack, { since: WEEKS_AGO, updated: WEEKS_AGO });
    assert.match(await rollBack(stack), "Rolled back green → blue");
    await assertServes(stack, "blue", "2.0.0");
  },
);

proof("a run that is killed before it recovers an earlier run keeps that run's record", async ({ stack }) => {
  await killAfterSwitch(stack, "rollback");
  await changeRecord(stack, { since: WEEKS_AGO, updated: WEEKS_AGO });
  const killed = startRun(stack, "rollback");
  await killed.waitForStep("check Docker");
  killed.kill("SIGKILL");
  await killed.ended;
  assert.match(await readFile(lockFile(stack), "utf8"), '"left":{"verb":"rollback","since":"2026-01-01');
  assert.match(await rollBack(stack), "Rolled back green → blue");
  await assertServes(stack, "blue", "2.0.0");
});
proof.run();
