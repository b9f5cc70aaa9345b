import { join } from "node:path";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import { readHistory } from "../../lib/run/history.ts";
import { type Bed, createBed, startPosts, stopLoads } from "../posts.ts";
import { suite } from "../suite.ts";

const verdict = suite<Bed>("verdict");
verdict.before(async (context) => {
  Object.assign(context, await createBed("verdict"));
});
verdict.after(({ stack }) => stack.remove());
verdict.after.each(stopLoads);

verdict("a release that fails its clients is taken back at once, although it looks healthy", async (bed) => {
  const { stack } = bed;
  const load = startPosts(bed);
  const run = await stack.deploy([], { LOOP_FAULT: "fail=100", VERIFY_SECONDS: "20" });
  const shots = await load.stop();
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, /green fails its clients: (\d+) of \1 responses with 5xx \(100.0 %\)/);
  assert.match(run.stderr, /blue before: 0 of \d+ \(0.0 %\)\n.*\d+ × POST \/mcp/);
  assert.is((await stack.get()).color, "blue");
  assert.equal(await stack.running(), ["blue"]);
  const failed = shots.filter(({ failure }) => failure);
  assert.ok(
    failed.every(({ failure }) => failure === "HTTP 500"),
    JSON.stringify(failed.slice(0, 5)),
  );
  assert.is((await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1)?.result, "VerdictError");
});

verdict("the figures are kept, and those of a failed release are not the previous color's", async (bed) => {
  const { stack } = bed;
  const good = await stack.deploy([], { VERIFY_SECONDS: "0" });
  assert.is(good.exitCode, 0, good.stdall);
  assert.match(good.stdout, "0 responses, 0 with 5xx: not judged");
  const env = { LOOP_FAULT: "fail=10", VERIFY_SECONDS: "6", JUDGE_PERCENT: "100" };
  const run = startRun(stack, "deploy", env);
  await run.waitForStep("switch nginx");
  const load = startPosts(bed);
  const { exitCode, output } = await run.ended;
  await load.stop();
  assert.is(exitCode, 0, output);
  assert.match(output, "green before: 0 responses, 0 with 5xx");
  const { traffic } = (await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1) ?? {};
  assert.ok(
    (traffic?.after.responses ?? 0) > 100 && (traffic?.after.errors ?? 0) > 0,
    JSON.stringify(traffic),
  );
  assert.match(
    output,
    `blue to clients: ${traffic?.after.responses} responses, ${traffic?.after.errors} with 5xx`,
  );
});
verdict.run();
