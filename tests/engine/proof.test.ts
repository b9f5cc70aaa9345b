import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { type Run, startRun, type Verb } from "../../bench/testbed/killed.ts";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

/** Which build serves and stays, where a run was cut off. Blue serves 2.0.0 at the start of each, green 1.0.0 stands by. */
const proof = suite<{ stack: Scratch }>("what was verified");
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

async function serves(stack: Scratch, color: string, version: string): Promise<void> {
  const { color: served, body } = await stack.front();
  assert.equal(
    [served, JSON.parse(body).version, await stack.running(), await stack.marked()],
    [color, version, [color], `${color}\n`],
  );
}

async function goBack(stack: Scratch): Promise<string> {
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  return run.stdall;
}

/** Blue with 2.0.0, and green with 1.0.0 beside it. */
async function asAtTheStart(stack: Scratch): Promise<void> {
  if ((await stack.front()).color === "green") await release(stack, "2.0.0");
  await release(stack, "1.0.0");
  await release(stack, "2.0.0");
  await serves(stack, "blue", "2.0.0");
}

/** A run that is killed once nginx was switched: a single answer is well then, and nothing is verified. */
async function cutOff(stack: Scratch, verb: Verb, env: Record<string, string> = {}): Promise<Run> {
  const run = startRun(stack, verb, { VERIFY_SECONDS: "30", ...env });
  await run.passed("switch nginx");
  run.kill("SIGKILL");
  await run.ended;
  assert.is((await stack.front()).color, "green");
  return run;
}

const imageOf = (stack: Scratch, color: string) => stack.field(`${stack.project}-api:${color}`, "{{.Id}}");
const lockFile = ({ stateDir }: Scratch): string => join(stateDir, "lock");

const WEEKS_AGO = "2026-01-01T03:00:00.000Z";

/** Rewrites the recovery record. */
async function rewrite(stack: Scratch, facts: Record<string, unknown>): Promise<void> {
  const text = await readFile(lockFile(stack), "utf8");
  const record = text.trim() === "" ? { verb: "rollback", pid: 1 } : JSON.parse(text);
  await writeFile(lockFile(stack), JSON.stringify({ ...record, ...facts }).padEnd(512));
}

proof(
  "a deploy cut off before the mark is not adopted by the next, which sees it well once",
  async ({ stack }) => {
    const good = await imageOf(stack, "blue");
    await cutOff(stack, "deploy", await stack.apiVersion("3.0.0"));
    const output = await release(stack, "4.0.0");
    assert.match(output, "green serves, but its release was never fully verified: going back to blue");
    await serves(stack, "green", "4.0.0");
    assert.is(await imageOf(stack, "blue"), good, "the only way back was built over");
    await goBack(stack);
    await serves(stack, "blue", "2.0.0");
    await asAtTheStart(stack);
  },
);

proof("the marked color is started again when it was stopped meanwhile", async ({ stack }) => {
  await cutOff(stack, "deploy", await stack.apiVersion("3.0.0"));
  await stack.docker("stop", "--time", "1", `${stack.project}-api-blue`);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") }); // no Dockerfile
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stdout, /✓ start blue[\s\S]*✓ switch nginx back to blue[\s\S]*✓ drain green/);
  await serves(stack, "blue", "2.0.0");
});

proof("a rollback after it goes back to what was marked, and no further", async ({ stack }) => {
  await cutOff(stack, "deploy", await stack.apiVersion("3.0.0"));
  assert.match(await goBack(stack), "Rolled back, from an interrupted release: green → blue");
  await serves(stack, "blue", "2.0.0");
  await goBack(stack);
  await serves(stack, "green", "1.0.0"); // the discarded build is out of reach
  await goBack(stack);
});

proof("a deploy that had recorded its verification stands", async ({ stack }) => {
  await cutOff(stack, "deploy", await stack.apiVersion("3.0.0"));
  await rewrite(stack, { verified: true });
  const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "blue is marked as active, but green serves and was verified: marking green");
  await serves(stack, "green", "3.0.0");
  await goBack(stack);
  await asAtTheStart(stack);
});

proof(
  "where the marked one is gone, what serves is verified in full; else exit 3, nothing built",
  async ({ stack }) => {
    const blue = `${stack.project}-api-blue`;
    const green = `${stack.project}-api-green`;
    await cutOff(stack, "deploy", await stack.apiVersion("3.0.0"));
    const unverified = await imageOf(stack, "green");
    await stack.docker("rm", "--force", blue);
    await stack.docker("rmi", "--force", `${stack.project}-api:blue`);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "20" });
    await run.passed("find the active color");
    await stack.docker("pause", green); // it does not answer any more
    const { exitCode, output } = await run.ended;
    await stack.docker("unpause", green);
    assert.is(exitCode, 3, output);
    assert.match(output, "green serves, but could not be verified, so it was not marked as active");
    assert.match(output, "There is nothing to roll back to");
    assert.match(output, `docker start ${blue} && `);
    assert.equal([await stack.marked(), await imageOf(stack, "green")], ["blue\n", unverified]);
    assert.not.match(output, /✓ (build|keep|remove)/);
    await waitFor("green serves", async () => (await stack.front()).status === 200);

    const next = await release(stack, "4.0.0");
    assert.match(next, "blue cannot take over, so green is verified instead");
    await serves(stack, "blue", "4.0.0");
    await goBack(stack);
    await serves(stack, "green", "3.0.0");
    await asAtTheStart(stack);
  },
);

proof(
  "switched by hand: verified in full or exit 3 with nothing changed; a rollback leaves it",
  async ({ stack }) => {
    const green = `${stack.project}-api-green`;
    await stack.docker("start", green);
    await waitFor("green is up", async () => (await stack.front("/_loop/green/health")).status === 200);
    await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), "green-upstream.conf");
    await stack.docker("exec", stack.nginxContainer, "sh", "-c", "kill -HUP 1");
    await waitFor("green serves", async () => (await stack.front()).color === "green");
    await stack.docker("stop", `${stack.project}-api-blue`);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "20" });
    await run.passed("find the active color");
    await stack.docker("pause", green);
    const { exitCode, output } = await run.ended;
    await stack.docker("unpause", green);
    assert.is(exitCode, 3, output);
    assert.match(output, "green serves, but no run has verified it: verifying it");
    assert.is(await stack.marked(), "blue\n");
    await waitFor("green serves", async () => (await stack.front()).status === 200);

    const back = await goBack(stack);
    assert.not.match(back, "verify green");
    await serves(stack, "blue", "2.0.0");
  },
);

proof(
  "nobody serves and only the other one runs: the marked one is started and stays the marked one",
  async (context) => {
    const { stack } = context;
    await stack.docker("stop", `${stack.project}-api-blue`);
    await stack.docker("start", `${stack.project}-api-green`);
    const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stdout, /✓ start blue[\s\S]*✓ stop green/);
    await serves(stack, "blue", "2.0.0");
  },
);

proof(
  "a rollback cut off weeks ago, or by a clock in the future, is not finished but done",
  async ({ stack }) => {
    for (const since of [WEEKS_AGO, "2999-01-01T03:00:00.000Z"]) {
      await cutOff(stack, "rollback");
      await rewrite(stack, { since, updated: since });
      const output = await goBack(stack);
      assert.match(output, "starting a new rollback from the serving color");
      assert.match(output, "Rolled back green → blue");
      await serves(stack, "blue", "2.0.0");
    }
  },
);

/** A docker command that does not stop containers. */
async function noStop(stack: Scratch): Promise<Record<string, string>> {
  const file = join(stack.folder, "docker-no-stop");
  await writeFile(file, '#!/bin/sh\n[ "$1" = stop ] && exit 1\nexec docker "$@"\n', { mode: 0o755 });
  return { DOCKER_CMD: file };
}

proof(
  "a rollback that ended with exit 3 is finished at once, and done after another run",
  async ({ stack }) => {
    const halfDone = await stack.rollback([], await noStop(stack));
    assert.is(halfDone.exitCode, 3, halfDone.stdall);
    assert.match(await goBack(stack), "Rolled back, finishing the interrupted run: blue → green");
    await serves(stack, "green", "1.0.0");
    await goBack(stack);
    await serves(stack, "blue", "2.0.0");

    assert.is((await stack.rollback([], await noStop(stack))).exitCode, 3);
    await rewrite(stack, { since: WEEKS_AGO, updated: WEEKS_AGO });
    assert.match(await goBack(stack), "Rolled back green → blue");
    await serves(stack, "blue", "2.0.0");
  },
);

proof(
  "a run killed before it settled anything does not make the record of before its own",
  async ({ stack }) => {
    await cutOff(stack, "rollback");
    await rewrite(stack, { since: WEEKS_AGO, updated: WEEKS_AGO });
    const killed = startRun(stack, "rollback");
    await killed.passed("check Docker");
    killed.kill("SIGKILL");
    await killed.ended;
    assert.match(await readFile(lockFile(stack), "utf8"), '"left":{"verb":"rollback","since":"2026-01-01');
    assert.match(await goBack(stack), "Rolled back green → blue");
    await serves(stack, "blue", "2.0.0");
  },
);
proof.run();
