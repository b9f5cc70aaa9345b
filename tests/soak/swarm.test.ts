import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { startLoad } from "../../bench/testbed/load.ts";
import { startRun } from "../../bench/testbed/run.ts";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { getInactiveColor } from "../../lib/color.ts";
import {
  createReleasedBed,
  failures,
  manager,
  running,
  serving,
  startPosts,
  statusOf,
  succeed,
  swarmSuite,
  url,
  version,
} from "../swarm-bed.ts";
import { losses } from "../switches.ts";

const { tests: swarmTests, run } = swarmSuite("a swarm of three nodes, for longer", createReleasedBed);

swarmTests("twenty switches lose no request, slow call or stream", async (bed) => {
  const { stack } = bed;
  const clients = { post: 12, get: 12, slow: 4, stream: 4 };
  const load = startLoad(url(bed), { clients, thinkMs: 100, patientMs: [0, 0] });
  bed.loads.push(load);
  for (let i = 0; i < 20; i++) await succeed(stack.rollback([], { DRAIN_SECONDS: "20" }));
  const shots = await load.stop();
  assert.equal(losses(shots), {});
  assert.ok(shots.length > 10_000, String(shots.length));
});

swarmTests(
  "after a restart of the manager, everything serves again, and the next run repairs what was killed",
  async (bed) => {
    const { stack } = bed;
    const run = startRun(stack, "rollback", {}, stack.launcher);
    await run.waitForStep("switch");
    run.kill("SIGKILL");
    await run.ended;
    await manager(bed).fail();
    await manager(bed).start();
    await waitFor("nginx serves again", async () => (await stack.get()).status === 200, 60).catch(
      async (error) => {
        for (const args of [
          ["ps", "--all"],
          ["node", "ls"],
          ["service", "ls"],
        ])
          console.error((await manager(bed).docker(...args)).stdall);
        throw error;
      },
    );
    await succeed(stack.rollback());
    assert.is((await stack.get()).status, 200);
  },
);

swarmTests("after any kill of a release, the next run repairs it, and no request is lost", async (bed) => {
  const { stack } = bed;
  const load = startPosts(bed);
  for (let i = 0; i < 12; i++) {
    const run = startRun(stack, "deploy", await version(bed, `2.0.${i}`), stack.launcher);
    await Promise.race([sleep(700 * (i + 1)), run.ended]);
    run.kill("SIGKILL");
    await run.ended;
    await succeed(i % 2 === 0 ? stack.rollback() : stack.deploy([], await version(bed, `2.1.${i}`)));
    const color = await serving(bed);
    assert.is(await running(bed, getInactiveColor(color)), 0, String(i));
    assert.equal((await statusOf(stack)).drift, [], String(i));
  }
  assert.equal(failures(await load.stop()), []);
});

swarmTests(
  "a release whose replicas all exit is taken back, and a rollback recreates its color",
  async (bed) => {
    const { stack } = bed;
    const before = await serving(bed);
    const { LOOP_API_CONTEXT: folder = "" } = await version(bed, "1.0.4");
    await writeFile(join(folder, "Dockerfile"), `FROM ${bed.image}\nCMD ["false"]\n`);
    const run = await stack.deploy([], { LOOP_API_CONTEXT: folder, HEALTH_RETRIES: "5" });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "Health check failed, rollback not performed");
    assert.is(await serving(bed), before);
    assert.is(await running(bed, getInactiveColor(before)), 0);
    await succeed(stack.rollback()); // it recreates the color from the image before
  },
);

swarmTests("the active color takes over the requests of a canary without replicas", async (bed) => {
  const { stack } = bed;
  const active = await serving(bed);
  const canary = { CANARY_PERCENT: "50", CANARY_SECONDS: "60" };
  const run = startRun(stack, "deploy", { ...(await version(bed, "1.0.7")), ...canary }, stack.launcher);
  await run.waitForStep("send ");
  run.kill("SIGKILL");
  await run.ended;
  const load = startPosts(bed);
  await sleep(1000);
  const colors = new Set(load.shots.map(({ color }) => color));
  await stack.docker("service", "scale", "--detach", `${stack.project}-api-${getInactiveColor(active)}=0`);
  await sleep(6000); // until its replicas have left the DNS and have stopped
  const since = load.now();
  await sleep(1000);
  await succeed(stack.rollback());
  const later = (await load.stop()).filter(({ at }) => at > since);
  assert.is(colors.size, 2, "the canary got requests");
  assert.equal(failures(later), []);
  assert.equal([...new Set(later.map(({ color }) => color))], [active]);
  assert.equal((await statusOf(stack)).drift, []);
});

run();
