import { test } from "uvu";
import * as assert from "uvu/assert";
import { kills } from "../../bench/kills.ts";

test("runs that are killed at random moments lose no request and leave nothing that needs manual work", async () => {
  const lines: string[] = [];
  const report = await kills({ runs: 8, seed: 7, daemon: false, say: (line) => lines.push(line) });
  assert.equal([report.failed, report.hands, report.unverified], [{}, [], []], lines.join("\n"));
  assert.ok(report.requests > 1000, `${report.requests} requests`);
});
test.run();
