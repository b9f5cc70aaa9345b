import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Entry } from "../lib/history.ts";
import { stillMeant } from "../lib/unfinished.ts";

const NOW = Date.parse("2026-11-24T03:00:00Z");
const at = (minutes: number): string => new Date(NOW + minutes * 60_000).toISOString();
const note = (since: string) => ({ verb: "rollback" as const, pid: 1, since });
const entry = (time: string): Entry => ({ time, verb: "deploy", result: "HealthError", message: "" });

test("a rollback that was cut off is meant again for ten minutes; weeks later, or in the future, it is not", () => {
  const meant = [-20_000, -11, -10, -1, 0, 1, 600].filter((minutes) =>
    stillMeant(note(at(minutes)), [], NOW),
  );
  assert.equal(meant, [-10, -1, 0]);
  assert.not(stillMeant(note("yesterday"), [], NOW));
});

test("once another run was recorded it is not; its own entry has the time that it began", () => {
  assert.ok(stillMeant(note(at(-5)), [entry(at(-8)), entry(at(-5))], NOW));
  for (const minutes of [-4, 0])
    assert.not(stillMeant(note(at(-5)), [entry(at(minutes)), entry(at(-8))], NOW));
  assert.ok(stillMeant(note(at(-5)), [entry(at(600))], NOW), "of a clock that was ahead once");
});
test.run();
