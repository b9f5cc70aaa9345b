import { test } from "uvu";
import * as assert from "uvu/assert";
import { figuresOf, type Outcome, quantile } from "../../bench/figures.ts";

const outcome: Outcome = {
  name: "one",
  steady: 1000,
  switches: [{ command: 1000, firstAnswer: 1120, stop: 1500, stopped: 1600 }],
  shots: [
    { kind: "get", at: 0, ms: 10, color: "blue" },
    { kind: "post", at: 500, ms: 20, color: "blue" },
    { kind: "post", at: 1050, ms: 5, failure: "ECONNRESET" },
    { kind: "slow", at: 600, ms: 2000, color: "blue" },
    { kind: "get", at: 1100, ms: 40, color: "green" },
    { kind: "get", at: 2200, ms: 10, color: "green" },
  ],
};

test("failures are counted by kind and per switch", () => {
  const { requests, failed, failedPerSwitch, failures } = figuresOf(outcome);
  assert.equal([requests, failed, failedPerSwitch], [6, 1, 1]);
  assert.equal(failures, { "post ECONNRESET": 1 });
});

test("a gap is the time between successful quick responses; slow calls do not end it", () => {
  assert.equal(figuresOf(outcome).longestGap, [2210 - 1140, 520 - 10]);
});

test("half a million responses can be evaluated", () => {
  const shots = Array.from(
    { length: 500_000 },
    (_, at) => ({ kind: "get", at, ms: 1, color: "blue" }) as const,
  );
  assert.equal(figuresOf({ ...outcome, shots }).longestGap, [1, 1]);
});

test("steady times are from before the first switch; switch times are from the command until 0.5 s after the stop", () => {
  const { p99Steady, p99Switch, firstAnswer } = figuresOf(outcome);
  assert.equal([p99Steady, p99Switch, firstAnswer], [20, 40, [120, 120]]);
});

test("a quantile is one of the values", () => {
  assert.is(quantile([3, 1, 2], 0.5), 2);
  assert.is(quantile([5], 0.99), 5);
  assert.ok(Number.isNaN(quantile([], 0.5)));
});
test.run();
