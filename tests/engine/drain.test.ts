import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { readHistory } from "../../lib/run/history.ts";
import { callTool } from "../call-tool.ts";
import { receiveNotices } from "../notices.ts";
import { suite } from "../suite.ts";

const drain = suite<{ stack: Scratch; url: string }>("drain");
drain.before(async (context) => {
  context.stack = await createReleasedScratch("drain", { VERIFY_SECONDS: "0" });
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
drain.after(({ stack }) => stack.remove());

drain(
  "requests that are still open at the drain limit are counted, reported and closed",
  async ({ stack, url }) => {
    const notices = await receiveNotices();
    const from = (await stack.get()).color;
    const run = startRun(stack, "rollback", { DRAIN_SECONDS: "2", NOTIFY_URL: notices.url });
    await run.waitForStep("start "); // the other color boots, so what is sent now is open at the switch
    const open = Promise.allSettled(
      [
        callTool(url, "count", { n: 100, interval: 0.3 }),
        callTool(url, "count", { n: 100, interval: 0.3 }),
        callTool(url, "slow", { seconds: 30 }),
      ].map(async (sent) => (await sent).body.text()),
    );
    const { exitCode, output } = await run.ended;
    notices.close();
    assert.is(exitCode, 0, output);
    assert.match(output, `requests to ${from} still open after 2 s: 3; closing`);
    assert.match(output, /Rolled back .* in [\d.]+ s; 3 requests were interrupted at the drain limit\n/);
    const notice = JSON.parse(notices.received.at(-1) ?? "{}");
    const entry = (await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1);
    for (const report of [notice, entry]) {
      assert.equal([report?.result, report?.cut], ["done", 3]);
      assert.match(report?.message, "3 requests were interrupted at the drain limit");
    }
    assert.match((await stack.status()).stdout, /(blue → green {3}|green → blue {3})done .* 3 interrupted/);
    const results = await open;
    assert.equal(
      results.map(({ status }) => status),
      ["rejected", "rejected", "rejected"],
    );
  },
);

drain("a release works while old workers of the previous one still drain", async ({ stack, url }) => {
  const before = (await stack.get()).color;
  let ended = false;
  const long = callTool(url, "count", { n: 150, interval: 0.2 }).then(async ({ body }) => body.text());
  void long.finally(() => {
    ended = true;
  });
  await sleep(300);
  const first = startRun(stack, "rollback");
  await first.waitForStep("mark");
  first.kill("SIGKILL");
  await first.ended;
  assert.not.ok(ended, "no old worker drains any more");
  const run = await stack.deploy([], { DRAIN_SECONDS: "40" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await stack.get()).color, before);
  assert.match(await long, `${before} ${(150 * 151) / 2}`);
});

drain.run();
