import { test } from "uvu";
import * as assert from "uvu/assert";
import { createScratch } from "../../bench/testbed/scratch.ts";
import { startSessions } from "../../bench/testbed/sessions.ts";

test("ten sessions with listening streams survive ten deploys and rollbacks", async () => {
  const stack = await createScratch("many-sessions");
  try {
    Object.assign(stack.env, { DRAIN_SECONDS: "20" }, await stack.sessionApi());
    for (let i = 0; i < 2; i++) assert.is((await stack.deploy()).exitCode, 0);
    const sessions = await startSessions(`http://127.0.0.1:${stack.env.NGINX_PORT}`, {
      count: 10,
      thinkMs: 200,
    });
    for (let i = 0; i < 5; i++) {
      for (const run of [await stack.deploy(), await stack.rollback()])
        assert.is(run.exitCode, 0, run.stdall);
    }
    const { calls, failures, broken, gaps, streamErrors } = await sessions.stop();
    console.log(`${calls} calls in ten sessions; lost listening streams: ${JSON.stringify(streamErrors)}`);
    assert.equal({ failures, broken, gaps }, { failures: {}, broken: 0, gaps: 0 });
    for (const { id, colors } of sessions.report().sessions) assert.equal(colors, ["blue"], id);
  } finally {
    await stack.remove();
  }
});
test.run();
