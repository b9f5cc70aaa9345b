import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startLoad } from "../../bench/testbed/load.ts";
import { createReleasedScratch } from "../../bench/testbed/scratch.ts";
import { expectPostsLost } from "../idle-bursts.ts";
import { LOAD, losses } from "../switches.ts";

// The tests in tests/load/ would prove nothing if their load did not detect lost requests.

test(
  "bursts of POSTs detect the requests that are lost if nginx keeps idle connections open longer than the API does",
  expectPostsLost,
);

test("the load of the switches detects the requests that reloads lose without keepalive_min_timeout", async () => {
  const stack = await createReleasedScratch("reloads");
  const file = join(stack.folder, "nginx/nginx-blue-green.conf");
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, LOAD);
  try {
    await writeFile(file, (await readFile(file, "utf8")).replace(/^ *keepalive_min_timeout .*$/m, ""));
    const anyLost = () => Object.keys(losses(load.shots)).length > 0;
    // A switch is a reload, so reloads are enough. The first one only loads the changed file, and losses are random: try many times.
    for (let i = 0; i < 100 && !anyLost(); i++) {
      await stack.docker("exec", stack.nginxContainer, "sh", "-c", "kill -HUP 1");
      await sleep(500); // old workers keep listening for 100 ms
    }
    assert.ok(anyLost(), "nothing was lost, so this load would not detect a loss");
  } finally {
    await load.stop();
    await stack.remove();
  }
});
test.run();
