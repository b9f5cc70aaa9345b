import * as assert from "uvu/assert";
import { getInactiveColor } from "../../lib/color.ts";
import {
  createBed,
  failures,
  runningIn,
  SMOKE,
  serving,
  startPosts,
  statusOf,
  succeed,
  swarmSuite,
  version,
  waitForAddresses,
} from "../swarm-bed.ts";
import { addSwarmTests } from "../swarm-checks.ts";

const { tests: swarmTests, run } = swarmSuite("a swarm of one node", () => createBed(true, 1)); // with three nodes: tests/soak/swarm-docs.test.ts

swarmTests("a release moves the API from Compose to a swarm without a lost request", async (bed) => {
  const { stack, swarm } = bed;
  await succeed(stack.deploy([], await version(bed, "0.9.0"))); // with Compose
  const color = getInactiveColor(await serving(bed));
  const load = startPosts(bed);
  Object.assign(stack.env, { ENGINE: "swarm", REPLICAS: "2", REGISTRY: swarm.registry });
  Object.assign(stack.env, await version(bed, "0.9.1"));
  const output = await succeed(stack.deploy([], { SMOKE_COMMAND: SMOKE }));
  assert.match(output, `✓ check the idle connections of ${color}`);
  assert.not.match(output, "were not checked");
  assert.is(await serving(bed), color);
  const { colors, drift } = await statusOf(stack);
  assert.equal(drift, []);
  assert.is(runningIn(colors[color]), 2);
  assert.is(colors[color].health, "healthy");
  const { stdout } = await stack.docker("service", "inspect", `${stack.project}-api-${color}`);
  assert.match(stdout, `${swarm.registry}/${stack.project}-api@sha256:`);
  await waitForAddresses(bed, color, 2);
  assert.equal(failures(await load.stop()), []);
});

addSwarmTests(swarmTests, 2);

run();
