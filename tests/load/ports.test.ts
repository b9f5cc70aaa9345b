import * as assert from "uvu/assert";
import { createReleasedWithApi, reloadConnections, saturate, sendBursts } from "../idle-bursts.ts";
import { suite } from "../suite.ts";

const local = suite("nginx's local ports");

/** A compose overlay that limits nginx's container to this range of local ports. */
const localPorts = (range: string): string =>
  `  loop-nginx:\n    sysctls: { net.ipv4.ip_local_port_range: "${range}" }\n`;

local(
  "no request fails if there are far more requests than local ports of nginx; without connection reuse, some fail",
  async () => {
    // 800 ports, instead of 28,232, run out within seconds instead of a minute. A burst needs 300, and on a busy
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

local.run();
