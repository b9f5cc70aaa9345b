import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { startLoad } from "../../bench/testbed/load.ts";
import type { Scratch } from "../../bench/testbed/scratch.ts";
import {
  createReleasedWithApi,
  expectNoPostLost,
  reloadConnections,
  sendBursts,
  setApi,
} from "../idle-bursts.ts";
import { suite } from "../suite.ts";

const connections = suite("connections to the API");

/** A compose overlay that limits nginx's container to this range of local ports. */
const localPorts = (range: string): string =>
  `  loop-nginx:\n    sysctls: { net.ipv4.ip_local_port_range: "${range}" }\n`;

connections(
  "no POST is lost if pauses are about as long as the API's idle timeout",
  () => expectNoPostLost(8000), // 50,000 in tests/soak/connections.test.ts
);

const SATURATION = { clients: { post: 16, get: 16 }, thinkMs: 0, patientMs: [0, 0] } as const;

/** Loads a stack until `requests` requests have ended. Returns the failures and their counts. */
async function saturate(stack: Scratch, requests: number): Promise<Record<string, number>> {
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, SATURATION);
  while (load.shots.length < requests) await sleep(50);
  const failed: Record<string, number> = {};
  for (const { failure } of await load.stop()) if (failure) failed[failure] = (failed[failure] ?? 0) + 1;
  return failed;
}

connections(
  "no request fails if there are far more than nginx has local ports; without connection reuse, many do",
  async () => {
    // With 800 ports instead of 28,232, they run out within seconds instead of a minute. A burst needs 300, and on a busy
    // machine, each burst closes some connections, whose ports stay in use for a minute.
    const stack = await createReleasedWithApi("ports", "timeout_keep_alive=5", {}, localPorts("20000 20799"));
    try {
      assert.equal(await saturate(stack, 2000), {});
      const bursts = await sendBursts(stack, 300, 50, 3000);
      assert.equal(bursts.lost, [], `of ${bursts.sent}, in bursts of 300`);
      await reloadConnections(stack, "keepalive 0;");
      assert.ok(((await saturate(stack, 2000))["HTTP 502"] ?? 0) > 0, "nginx had enough ports");
    } finally {
      await stack.remove();
    }
  },
);

connections(
  "no request is lost to an API that closes after each response and announces it, or with API_IDLE_SECONDS=0; one that closes sooner than that setting says is not released",
  async () => {
    const stack = await createReleasedWithApi(
      "closing",
      "timeout_keep_alive=5, headers=[('connection', 'close')]",
      {},
    );
    try {
      assert.equal(await saturate(stack, 2000), {});
      await setApi(stack, "timeout_keep_alive=0");
      const silent = await stack.deploy();
      assert.is(silent.exitCode, 1, silent.stdall);
      assert.match(silent.stderr, "The API closes idle connections sooner than API_IDLE_SECONDS=2 says");
      assert.equal(await stack.running(), ["green"]);
      stack.env.API_IDLE_SECONDS = "0";
      const run = await stack.deploy();
      assert.is(run.exitCode, 0, run.stdall);
      assert.equal(await saturate(stack, 2000), {});
    } finally {
      await stack.remove();
    }
  },
);
connections.run();
