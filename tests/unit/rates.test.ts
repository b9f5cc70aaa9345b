import { test } from "uvu";
import * as assert from "uvu/assert";
import { newRates } from "../../lib/release/rates.ts";

const START = Date.UTC(2026, 10, 25, 3);
const at = (seconds: number): number => START + seconds * 1000;

/** Adds responses that ended and arrived at these seconds. */
function add(
  rates: ReturnType<typeof newRates>,
  ended: number,
  arrived: number,
  status = 200,
  count = 1,
): void {
  for (let i = 0; i < count; i++) rates.add({ color: "green", status, atMs: at(ended) }, at(arrived));
}

test("responses count in the second in which they ended, by color, with those that failed", () => {
  const rates = newRates();
  rates.begin(at(-1));
  add(rates, 10, 11.2, 200, 3);
  add(rates, 10, 11.9, 502);
  rates.add({ color: "blue", status: 404, atMs: at(10) }, at(11));
  const { blue, green } = rates.lastMinute(at(12.5));
  assert.equal([blue.length, green.length], [60, 60]);
  assert.equal(green.slice(-2), [
    { responses: 0, errors: 0 },
    { responses: 4, errors: 1 },
  ]);
  assert.equal(blue.at(-1), { responses: 1, errors: 0 });
});

test("seconds without the log are unknown, not empty", () => {
  const rates = newRates();
  rates.begin(at(0.5));
  add(rates, 1, 1.5);
  rates.end(at(3.5));
  rates.begin(at(5.5));
  const { green } = rates.lastMinute(at(9));
  assert.equal(
    green.slice(-8).map((second) => second?.responses),
    [undefined, 1, 0, undefined, undefined, undefined, 0, 0],
  );
});

test("an engine with another clock does not put responses into another minute", () => {
  for (const skew of [-3600, 3600]) {
    const rates = newRates();
    rates.begin(at(0));
    add(rates, 30 + skew, 30);
    const total = rates.lastMinute(at(35)).green.reduce((sum, second) => sum + (second?.responses ?? 0), 0);
    assert.is(total, 1, `${skew} s`);
  }
});

test("what is older than the minute is forgotten", () => {
  const rates = newRates();
  rates.begin(at(0));
  add(rates, 5, 5);
  const total = (now: number): number =>
    rates.lastMinute(at(now)).green.reduce((sum, second) => sum + (second?.responses ?? 0), 0);
  assert.equal([total(66), total(67)], [1, 0]);
});
test.run();
