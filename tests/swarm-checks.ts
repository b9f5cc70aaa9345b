import { setTimeout as sleep } from "node:timers/promises";
import type { Test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun } from "../bench/testbed/run.ts";
import { waitFor } from "../bench/testbed/scratch.ts";
import { startSessions } from "../bench/testbed/sessions.ts";
import { getInactiveColor } from "../lib/color.ts";
import {
  type Bed,
  failures,
  runningIn,
  serving,
  sessionApi,
  startPosts,
  statusOf,
  succeed,
  url,
  version,
} from "./swarm-bed.ts";

/**
 * Adds the tests that do not depend on the number of nodes. They expect two earlier releases: 0.9.0 with Compose, then 0.9.1 to
 * the swarm, with `replicas` replicas. `stack.env` must still name the sources of 0.9.1.
 */
export function addSwarmTests(tests: Test<Bed>, replicas: number): void {
  tests(
    "the next release repairs a killed rollback; after a release that cannot push its image, a rollback starts the service of the previous release unchanged",
    async (bed) => {
      const { stack } = bed;
      const load = startPosts(bed);
      const from = await serving(bed);
      const color = getInactiveColor(from);
      const killIn = async (step: string, env: Record<string, string> = {}): Promise<readonly string[]> => {
        const run = startRun(stack, "rollback", env, stack.launcher);
        await run.waitForStep(step);
        run.kill("SIGKILL");
        await run.ended;
        return run.steps;
      };
      assert.ok((await killIn("mark")).includes(`recreate ${color}`)); // the color that Compose ran is a service now
      assert.is(await stack.containerStatus(color), "absent");
      assert.is(JSON.parse((await stack.get()).body).version, "0.9.0");

      const unreachable = { REGISTRY: "127.0.0.1:1" };
      const notPushed = await stack.deploy([], { ...(await version(bed, "0.9.3")), ...unreachable });
      assert.is(notPushed.exitCode, 1, notPushed.stdall);
      assert.match(notPushed.stdall, new RegExp(`✓ stop ${from} [^]*build ${from}`), "repaired first");
      assert.match(notPushed.stderr, "Docker failed while pushing");
      assert.is(await serving(bed), color);
      const afterRepair = await statusOf(stack);
      assert.equal(afterRepair.drift, []);
      assert.equal(
        [runningIn(afterRepair.colors[color]), runningIn(afterRepair.colors[from])],
        [replicas, 0],
      );

      const without = { LOOP_API_CONTEXT: "/nonexistent", ...unreachable };
      await killIn(`start ${from}`, { ...without, REPLICAS: String(replicas - 1) });
      const repaired = await succeed(stack.rollback([], without)); // with the stack's REPLICAS, not those of the killed run
      assert.match(repaired, new RegExp(`✓ stop ${from} [^]*✓ start ${from} `));
      assert.is(JSON.parse((await stack.get()).body).version, "0.9.1");
      const { colors, drift } = await statusOf(stack);
      assert.equal(drift, []);
      assert.equal([runningIn(colors[from]), runningIn(colors[color])], [replicas, 0]);
      await waitFor("there were many requests", async () => load.shots.length > 1000, 60);
      assert.equal(failures(await load.stop()), []);
    },
  );

  tests("sessions stay with their replica, through a release", async (bed) => {
    const { stack } = bed;
    await succeed(stack.deploy([], await sessionApi(bed)));
    const from = await serving(bed);
    const sessions = await startSessions(url(bed), {
      count: 6,
      thinkMs: 300,
      slowSeconds: 0.5,
      listen: false,
    });
    bed.loads.push(sessions);
    await sleep(1000);
    const output = await succeed(stack.deploy());
    assert.match(output, `${from} still serves its sessions`);
    const before = sessions.report();
    await sleep(1000);
    const after = sessions.report();
    assert.ok(after.calls > before.calls);
    assert.equal({ failures: after.failures, gaps: after.gaps }, { failures: {}, gaps: 0 });
    for (const { colors } of after.sessions) assert.equal(colors, [from]);

    // As if all nodes of the previous color had failed: its sessions are gone.
    const [{ id } = { id: "" }] = after.sessions;
    await stack.docker("service", "scale", "--detach", `${stack.project}-api-${from}=0`);
    const call = () =>
      fetch(`${url(bed)}/mcp`, { method: "POST", headers: { "mcp-session-id": id }, body: "{}" });
    await waitFor("a client learns that its session is gone", async () => (await call()).status === 404, 30);
    assert.is(await serving(bed), getInactiveColor(from));
    bed.loads.splice(0);
    await sessions.stop();
    await succeed(stack.endSessions(["--now"]));
  });

  tests("a run refuses a service that another manager manages", async (bed) => {
    const { stack } = bed;
    const before = await serving(bed);
    const name = `${stack.project}-api-${before}`;
    const label = async () =>
      (
        await stack.docker("service", "inspect", "--format", '{{index .Spec.Labels "loop.manager"}}', name)
      ).stdout.trim();
    const own = await label();
    await stack.docker("service", "update", "--detach", "--label-add", "loop.manager=another", name);
    const run = await stack.deploy();
    assert.is(run.exitCode, 2, run.stdall);
    assert.match(run.stderr, `The service ${name} is managed from another node of the swarm`);
    const [, adopt = "false"] = run.stderr.match(/lost for good: (.*), then run this again/) ?? [];
    await $({ quiet: true, env: stack.env })`sh -c ${adopt}`;
    assert.is(await label(), own);
  });
}
