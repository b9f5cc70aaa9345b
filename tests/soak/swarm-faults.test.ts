import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { type Color, getInactiveColor } from "../../lib/color.ts";
import {
  type Bed,
  createReleasedBed,
  failures,
  running,
  runningIn,
  serving,
  startPosts,
  statusOf,
  succeed,
  swarmSuite,
  version,
  worker,
} from "../swarm-bed.ts";

const { tests: swarmTests, run } = swarmSuite("faults of a swarm's nodes", createReleasedBed);

swarmTests("a release names the node that cannot pull, and is taken back", async (bed) => {
  const { stack, swarm } = bed;
  const load = startPosts(bed);
  const active = await serving(bed);
  const idle = getInactiveColor(active);
  const registry = swarm.registry.split(":")[0] ?? "";
  const block = ["OUTPUT", "-d", registry, "-p", "tcp", "--dport", "5000", "-j", "REJECT"];
  const onWorkers = async (option: string): Promise<void> => {
    for (const { launcher } of swarm.nodes.slice(1))
      await $({ quiet: true })`${launcher} iptables ${option} ${block}`;
  };
  await onWorkers("-I");
  try {
    // Ends before Docker gives up on these nodes, after 5 s, and runs all replicas on the manager.
    const run = await stack.deploy([], { ...(await version(bed, "1.0.2")), HEALTH_RETRIES: "4" });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "Health check failed, rollback not performed");
    assert.match(run.stderr, /1 of 3 replicas run; node-[23]: .*(pull|image|connect)/i);
  } finally {
    await onWorkers("-D");
  }
  assert.is(await serving(bed), active);
  const { colors, drift } = await statusOf(stack);
  assert.equal(drift, []);
  assert.equal([runningIn(colors[active]), runningIn(colors[idle])], [3, 0]);

  assert.match(await succeed(stack.rollback()), `✓ recreate ${idle}`);
  assert.is(JSON.parse((await stack.get()).body).version, "1.0.0", "the image before the failed release");
  await waitFor("there were many requests", async () => load.shots.length > 1000, 60);
  assert.equal(failures(await load.stop()), []);
});

/** The nodes of a color's replicas, if exactly that many run. Polled: a status would take 1.5 CPU-s. */
async function nodesOf({ stack }: Bed, color: Color, replicas = 3): Promise<Set<string>> {
  const format = ["--filter", "desired-state=running", "--format", "{{.CurrentState}} {{.Node}}"];
  const { stdout } = await stack.docker("service", "ps", ...format, `${stack.project}-api-${color}`);
  const nodes = [...stdout.matchAll(/^Running .* (\S+)$/gm)].map(([, node = ""]) => node);
  return new Set(nodes.length === replicas ? nodes : []);
}

swarmTests(
  "a worker that fails while it serves costs what was in flight on it, and is replaced",
  async (bed) => {
    const { stack } = bed;
    const color = await serving(bed);
    assert.is((await nodesOf(bed, color)).size, 3);
    const load = startPosts(bed);
    await sleep(1000);
    await worker(bed).fail();
    await waitFor(
      "Docker runs three replicas elsewhere",
      async () => (await nodesOf(bed, color)).size === 2,
      60,
      0.5,
    );
    await sleep(2000); // nginx finds it
    const since = load.now();
    await sleep(3000);
    const shots = await load.stop();
    assert.equal(failures(shots.filter(({ at }) => at > since)), []);
    const lost = failures(shots);
    assert.ok(lost.length <= 6, `${lost.length} lost: ${lost.join(", ")}`); // one per client
    assert.is(await running(bed, color), 3);

    stack.env.REPLICAS = "2"; // as many as there are nodes left
    await succeed(stack.deploy([], await version(bed, "1.0.3")));
    assert.is((await nodesOf(bed, getInactiveColor(color), 2)).size, 2);
  },
);

run();
