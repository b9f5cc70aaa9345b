import { test } from "uvu";
import * as assert from "uvu/assert";
import { mismatch } from "../../lib/util/expectation.ts";

test("a response may have more keys than are expected, at every depth", () => {
  const actual = { ok: true, checks: { db: "up", cache: "up" }, version: "2" };
  assert.is(mismatch(actual, { ok: true, checks: { db: "up" } }), undefined);
  assert.is(mismatch(actual, {}), undefined);
});

const DIFFERENCES: [string, unknown, Record<string, unknown>, string][] = [
  ["another value", { ok: false }, { ok: true }, "ok is false, expected true"],
  ["another type", { ok: "true" }, { ok: true }, 'ok is "true", expected true'],
  ["a nested value", { db: { up: 0 } }, { db: { up: 1 } }, "db.up is 0, expected 1"],
  ["a missing key", { a: 1 }, { b: null }, "b is missing, expected null"],
  ["an inherited key", {}, { constructor: {} }, "constructor is missing, expected {}"],
  ["no object where one is expected", { db: "up" }, { db: { up: 1 } }, 'db is "up", expected an object'],
  ["a longer array", { parts: [1, 2] }, { parts: [1] }, "parts is [1,2], expected [1]"],
  ["no object at all", ["ok"], { ok: true }, 'the response is ["ok"], expected an object'],
  ["nothing", null, { ok: true }, "the response is null, expected an object"],
];
for (const [name, actual, expected, finding] of DIFFERENCES)
  test(`a mismatch says what differs: ${name}`, () => assert.is(mismatch(actual, expected), finding));

test("a mismatch quotes at most 40 characters of a value", () => {
  assert.is(mismatch({ a: "x".repeat(1000) }, { a: 1 }), `a is "${"x".repeat(39)}…, expected 1`);
});
test.run();
