import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { startSessions } from "../../bench/testbed/sessions.ts";
import { getInactiveColor } from "../../lib/color.ts";
import {
  createBed,
  running,
  serving,
  sessionApi,
  statusOf,
  succeed,
  swarmSuite,
  url,
  version,
} from "../swarm-bed.ts";

const { tests: swarmTests, run } = swarmSuite("a swarm of one node, without a registry", () =>
  createBed(true, 1),
);

swarmTests(
  "a rollback to the color that Compose still runs for its sessions waits for their requests",
  async (bed) => {
    const { stack } = bed;
    const api = await sessionApi(bed);
    await succeed(stack.deploy([], api)); // with Compose
    const from = await serving(bed);
    const options = { count: 3, thinkMs: 200, slowEveryMs: 300, slowSeconds: 4, listen: false };
    const sessions = await startSessions(url(bed), options);
    bed.loads.push(sessions);
    await sleep(1000);
    Object.assign(stack.env, { ENGINE: "swarm", REPLICAS: "2", DRAIN_SECONDS: "20" });
    await succeed(stack.deploy([], api));
    assert.is(await stack.containerStatus(from), "running", "it still has its sessions");
    assert.equal(sessions.report().failures, {});
    const output = await succeed(stack.rollback());
    assert.match(output, `✓ recreate ${from}`);
    assert.is(await running(bed, from), 2);
    bed.loads.splice(0);
    const { failures } = await sessions.stop();
    assert.ok(Object.keys(failures).length > 0, "the sessions have ended");
    for (const failure of Object.keys(failures)) assert.match(failure, "404");
  },
);

swarmTests("a rollback starts the image of its release, whatever has become of the names", async (bed) => {
  const { stack } = bed;
  for (const number of ["1.0.1", "1.0.2"]) await succeed(stack.deploy([], await version(bed, number)));
  const active = await serving(bed);
  const idle = getInactiveColor(active);
  const local = `127.0.0.1:1/${stack.project}-api:${idle}`;
  await stack.docker("tag", `${stack.project}-api:${active}`, local); // as a killed run of an older version
  await succeed(stack.rollback());
  assert.is(JSON.parse((await stack.get()).body).version, "1.0.1");
  await stack.docker("rmi", `127.0.0.1:1/${stack.project}-api:${active}`);
  await succeed(stack.rollback());
  assert.is(JSON.parse((await stack.get()).body).version, "1.0.2");
});

swarmTests("a paused standby keeps its replicas, and a rollback moves the traffic to them", async (bed) => {
  const { stack } = bed;
  Object.assign(stack.env, { STANDBY: "paused" });
  await succeed(stack.deploy([], await version(bed, "1.0.3")));
  const active = await serving(bed);
  assert.is(await running(bed, getInactiveColor(active)), 2);
  const { colors, drift } = await statusOf(stack);
  assert.equal([colors[getInactiveColor(active)].container, drift], ["paused", []]);
  await succeed(stack.rollback());
  assert.is(await running(bed, active), 2);
  assert.equal((await statusOf(stack)).drift, []);

  await stack.docker("image", "prune", "--all", "--force");
  await succeed(stack.rollback());
  assert.is(JSON.parse((await stack.get()).body).version, "1.0.3");
  assert.equal((await statusOf(stack)).drift, []);
});

run();
