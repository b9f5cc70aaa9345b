import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import type { Shot } from "../../bench/testbed/load.ts";
import { startRun } from "../../bench/testbed/run.ts";
import { type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { probeLoadedColor } from "../../lib/nginx/probe.ts";
import { readHistory } from "../../lib/run/history.ts";
import { loadSettings } from "../../lib/settings.ts";
import { type Bed, createBed, startPosts, stopLoads } from "../posts.ts";
import { suite } from "../suite.ts";

const canary = suite<Bed>("canary");
canary.before(async (context) => {
  Object.assign(context, await createBed("canary", { CANARY_PERCENT: "25", CANARY_SECONDS: "3" }));
});
canary.after(({ stack }) => stack.remove());
canary.after.each(stopLoads);

/** The pause of each client: some requests are always open, and the API has time for its health checks. */
const THINK_MS = 150;

const failures = (shots: readonly Shot[]): string[] => shots.flatMap(({ failure }) => failure ?? []);

const linkOf = ({ folder }: Scratch): Promise<string> => readlink(join(folder, "nginx/active-upstream.conf"));

canary("a canary gets its share of the new requests, then all of them, and none is lost", async (bed) => {
  const { stack } = bed;
  const load = startPosts(bed, THINK_MS);
  const run = startRun(stack, "deploy");
  await run.waitForStep("send 25 % of the new requests to green");
  const from = load.shots.length;
  await run.waitForStep("verify green as a canary");
  const during = load.shots.slice(from);
  const { exitCode, output } = await run.ended;
  assert.is(exitCode, 0, output);
  const shots = await load.stop();
  assert.equal(failures(shots), []);
  const share = during.filter(({ color }) => color === "green").length / during.length;
  assert.ok(share > 0.1 && share < 0.45, `green got ${share} of ${during.length}`);
  assert.match(output, /green as a canary: \d+ responses, 0 with 5xx/);
  assert.is(await linkOf(stack), "green-upstream.conf");
});

canary("a canary that fails its clients is taken back before the others notice", async (bed) => {
  const { stack } = bed;
  const load = startPosts(bed, THINK_MS);
  await sleep(1000);
  const run = await stack.deploy([], { LOOP_FAULT: "fail=100", CANARY_SECONDS: "20" });
  const shots = await load.stop();
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "blue fails its clients: ");
  assert.not.match(run.stdall, "switch nginx to blue");
  assert.equal(await stack.running(), ["green"]);
  assert.is(await linkOf(stack), "green-upstream.conf");
  const blue = shots.filter(({ failure }) => failure);
  assert.ok(blue.length >= 3 && blue.every(({ failure }) => failure === "HTTP 500"), failures(shots).join());
  const { result, traffic } = (await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1) ?? {};
  assert.is(result, "VerdictError");
  assert.is(traffic?.after.errors, traffic?.after.responses, "the history has the figures");
});

/** Starts a deploy, and kills it as soon as its canary gets requests. */
async function killCanary(stack: Scratch): Promise<void> {
  const run = startRun(stack, "deploy", { CANARY_SECONDS: "60" });
  await run.waitForStep("send ");
  run.kill("SIGKILL");
  await run.ended;
}

/** Neither the link nor nginx knows a canary. */
async function expectNoCanary(stack: Scratch): Promise<void> {
  assert.is(await linkOf(stack), "green-upstream.conf");
  const { color, canary } = await probeLoadedColor(loadSettings(stack.env, "/nonexistent"));
  assert.equal({ color, canary }, { color: "green", canary: undefined });
}

canary(
  "after a kill, green gets the share of a canary that has stopped; status shows it, and a rollback ends it",
  async (bed) => {
    const { stack } = bed;
    const load = startPosts(bed, THINK_MS);
    await killCanary(stack);
    const { stdout, exitCode } = await stack.status();
    assert.match(stdout, `${stack.project}: green serves, seen through nginx`);
    assert.match(stdout, "blue is a canary: it gets 25 % of the new requests");
    assert.match(stdout, "! blue is still a canary, but no run is watching it");
    assert.is(exitCode, 1);
    await stack.docker("stop", `${stack.project}-api-blue`); // interrupts what it has open
    await sleep(4000); // until nginx has looked its name up again: a second, on a busy machine more
    const since = load.now();
    await sleep(1000);
    const back = await stack.rollback();
    assert.is(back.exitCode, 0, back.stdall);
    assert.match(back.stdout, "Rolled back, from an interrupted release: blue → green");
    assert.equal(await stack.running(), ["green"]);
    await expectNoCanary(stack);
    const later = (await load.stop()).filter(({ at }) => at > since);
    assert.equal(failures(later), []);
    assert.equal([...new Set(later.map(({ color }) => color))], ["green"]);
  },
);

canary(
  "a deploy ends a canary also while neither color answers; a canary that becomes unhealthy is taken back",
  async ({ stack }) => {
    await killCanary(stack);
    const containers = [`${stack.project}-api-blue`, `${stack.project}-api-green`];
    const signal = (name: string) => stack.docker("kill", "--signal", name, ...containers);
    await signal("STOP");
    const run = startRun(stack, "deploy", { LOOP_FAULT: "sick-after=12", CANARY_SECONDS: "30" });
    // Then it waits for green.
    await waitFor("the canary has ended", () => expectNoCanary(stack).then(() => true), 60).finally(() =>
      signal("CONT"),
    );
    const { exitCode, output } = await run.ended;
    assert.is(exitCode, 1, output);
    assert.match(output, "send 25 % of the new requests to blue");
    assert.match(output, /Verification through nginx failed .*\n.*Expected a healthy response from blue/);
    assert.equal(await stack.running(), ["green"]);
    await expectNoCanary(stack);
  },
);

canary.run();
