import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { startRun, type Verb } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { type Color, getInactiveColor, isColor } from "../../lib/color.ts";
import { ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

/** Which build serves after a run was killed. At the start of each test one color serves, and the other is on standby. */
const proof = suite<{ stack: Scratch }>("proof of the serving color");
proof.before(async (context) => {
  context.stack = await createReleasedScratch("proof");
});
proof.after(({ stack }) => stack.remove());

/** The version of each color's last good build. */
const versions: Record<Color, string> = { blue: "1.0.0", green: "1.0.0" };

async function servingColor(stack: Scratch): Promise<Color> {
  const { color } = await stack.get();
  return isColor(color) ? color : (assert.unreachable(`${color} serves`) as never);
}

/** Releases a version to the idle color. Returns the run. */
async function release(stack: Scratch, version: string) {
  const run = await stack.deploy([], await stack.apiVersion(version));
  assert.is(run.exitCode, 0, run.stdall);
  versions[await servingColor(stack)] = version;
  return run;
}

async function assertServes(stack: Scratch, color: Color): Promise<void> {
  const { color: served, body } = await stack.get();
  assert.equal(
    [served, JSON.parse(body).version, await stack.running(), await stack.readStateFile()],
    [color, versions[color], [color], `${color}\n`],
  );
}

async function rollBack(stack: Scratch): Promise<string> {
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  return run.stdall;
}

/** Makes a release that fails at its build, after all repairs. Returns the run. */
async function failToBuild(stack: Scratch) {
  const run = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") }); // no Dockerfile
  assert.is(run.exitCode, 1, run.stdall);
  return run;
}

/** Starts a run and kills it right after the switch, before anything is verified. Returns its colors. */
async function killAfterSwitch(stack: Scratch, verb: Verb, env: Record<string, string> = {}) {
  const from = await servingColor(stack);
  const to = getInactiveColor(from);
  const run = startRun(stack, verb, { VERIFY_SECONDS: "30", ...env });
  await run.waitForStep("switch nginx");
  run.kill("SIGKILL");
  await run.ended;
  assert.is(await servingColor(stack), to);
  return { from, to };
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
  "a deploy that was killed before it was marked is undone by the next run, which starts the marked color if it was stopped",
  async ({ stack }) => {
    const good = await imageOf(stack, await servingColor(stack));
    const { from, to } = await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
    await stack.docker("stop", "--time", "1", `${stack.project}-api-${from}`);
    const { stdout, stderr } = await release(stack, "4.0.0");
    assert.match(stderr, `${to} serves, but its release was never fully verified: going back to ${from}`);
    assert.match(stdout, new RegExp(`✓ start ${from}[^]*✓ switch nginx back to ${from}[^]*✓ drain ${to}`));
    await assertServes(stack, to);
    assert.is(await imageOf(stack, from), good, "the only build to roll back to was overwritten");
  },
);

proof("a rollback after a killed deploy goes back to the marked color, not further", async ({ stack }) => {
  const { from, to } = await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
  assert.match(await rollBack(stack), `Rolled back, from an interrupted release: ${to} → ${from}`);
  await assertServes(stack, from);
});

proof("a rollback that ended half done, with exit code 3, is finished by the next one", async ({ stack }) => {
  const from = await servingColor(stack);
  const to = getInactiveColor(from);
  const withoutStop = join(stack.folder, "docker-no-stop");
  await writeFile(withoutStop, '#!/bin/sh\n[ "$1" = stop ] && exit 1\nexec docker "$@"\n', { mode: 0o755 });
  const halfDone = await stack.rollback([], { DOCKER_CMD: withoutStop });
  assert.is(halfDone.exitCode, 3, halfDone.stdall);
  assert.match(await rollBack(stack), `Rolled back, finishing the interrupted run: ${from} → ${to}`);
  await assertServes(stack, to); // with its last good build: the one that the killed deploy made is gone
});

proof("a killed deploy that had recorded its verification stands", async ({ stack }) => {
  const { from, to } = await killAfterSwitch(stack, "deploy", await stack.apiVersion("3.0.0"));
  await changeRecord(stack, { verified: true });
  const run = await failToBuild(stack);
  assert.match(run.stderr, `${from} is marked as active, but ${to} serves and was verified: marking ${to}`);
  versions[to] = "3.0.0";
  await assertServes(stack, to);
});

proof(
  "a color that was switched to by hand is verified in full, or the run exits with 3; a rollback leaves it",
  async ({ stack }) => {
    const from = await servingColor(stack);
    const to = getInactiveColor(from);
    const byHand = `${stack.project}-api-${to}`;
    await stack.docker("start", byHand);
    await waitFor(`${to} is ready`, async () => (await stack.get(`/_loop/${to}/health`)).status === 200);
    await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), `${to}-upstream.conf`);
    await stack.docker("exec", stack.nginxContainer, "sh", "-c", "kill -HUP 1");
    await waitFor(`${to} serves`, async () => (await stack.get()).color === to);
    await stack.docker("stop", `${stack.project}-api-${from}`);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "20" });
    await run.waitForStep("find the active color");
    await stack.docker("pause", byHand);
    const { exitCode, output } = await run.ended;
    await stack.docker("unpause", byHand);
    assert.is(exitCode, 3, output);
    assert.match(output, `${to} serves, but no run has verified it: verifying it`);
    assert.is(await stack.readStateFile(), `${from}\n`);
    await waitFor(`${to} serves`, async () => (await stack.get()).status === 200);

    const back = await rollBack(stack);
    assert.not.match(back, `verify ${to}`);
    await assertServes(stack, from);
  },
);

proof(
  "if neither color serves and only the unmarked one runs, the marked color is started and stays marked",
  async ({ stack }) => {
    const marked = await servingColor(stack);
    const other = getInactiveColor(marked);
    await stack.docker("stop", `${stack.project}-api-${marked}`);
    await stack.docker("start", `${stack.project}-api-${other}`);
    const run = await failToBuild(stack);
    assert.match(run.stdout, new RegExp(`✓ start ${marked}[^]*✓ stop ${other}`));
    await assertServes(stack, marked);
  },
);

proof(
  "a rollback from weeks ago is not finished, even after another run that was killed early; a new one is made",
  async ({ stack }) => {
    const { from, to } = await killAfterSwitch(stack, "rollback");
    await changeRecord(stack, { since: WEEKS_AGO, updated: WEEKS_AGO });
    const killed = startRun(stack, "rollback");
    await killed.waitForStep("check Docker");
    killed.kill("SIGKILL"); // before it recovers the earlier run
    await killed.ended;
    assert.match(await readFile(lockFile(stack), "utf8"), '"left":{"verb":"rollback","since":"2026-01-01');
    const output = await rollBack(stack);
    assert.match(output, "starting a new rollback from the serving color");
    assert.match(output, `Rolled back ${to} → ${from}`);
    await assertServes(stack, from);
  },
);
// The last test: it leaves no color to roll back to.
proof(
  "if the marked color is gone, the serving color is verified in full, or the run exits with 3 and builds nothing",
  async ({ stack }) => {
    const { from, to } = await killAfterSwitch(stack, "deploy", await stack.apiVersion("5.0.0"));
    const [gone, serving] = [`${stack.project}-api-${from}`, `${stack.project}-api-${to}`];
    const unverified = await imageOf(stack, to);
    await stack.docker("rm", "--force", gone);
    await stack.docker("rmi", "--force", `${stack.project}-api:${from}`);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "20" });
    await run.waitForStep("find the active color");
    await stack.docker("pause", serving); // it no longer responds
    const { exitCode, output } = await run.ended;
    await stack.docker("unpause", serving);
    assert.is(exitCode, 3, output);
    assert.match(output, `${to} serves, but could not be verified, so it was not marked as active`);
    assert.match(output, "There is nothing to roll back to");
    assert.match(output, `docker start ${gone} && `);
    assert.equal([await stack.readStateFile(), await imageOf(stack, to)], [`${from}\n`, unverified]);
    assert.not.match(output, /✓ (build|restore|remove)/);
    await waitFor(`${to} serves`, async () => (await stack.get()).status === 200);

    versions[to] = "5.0.0";
    const next = await failToBuild(stack);
    assert.match(next.stderr, `${from} cannot take over, so ${to} is verified instead`);
    await assertServes(stack, to);
  },
);

proof.run();
