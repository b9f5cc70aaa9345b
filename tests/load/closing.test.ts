import * as assert from "uvu/assert";
import { createReleasedWithApi, saturate, setApi } from "../idle-bursts.ts";
import { suite } from "../suite.ts";

const closing = suite("an API that closes its connections");

closing(
  "no request is lost if the API closes the connection after each response and announces it, or with API_IDLE_SECONDS=0; an API that closes idle connections sooner than API_IDLE_SECONDS says is not released",
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
closing.run();
