import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ColorStatus, Status } from "../../lib/release/status-report.ts";
import { describeRun, describeStatus } from "../../lib/release/status-text.ts";
import { DONE } from "../../lib/run/history.ts";

const ABSENT: ColorStatus = {
  container: "absent",
  port: 8082,
  replicas: null,
  image: null,
  source: null,
  built: null,
  revision: null,
  failed: false,
  health: null,
};

/** The status of a machine without a release. */
const EMPTY: Status = {
  project: "loop",
  serving: null,
  colors: { blue: ABSENT, green: ABSENT },
  nginx: "absent",
  auth: "absent",
  link: null,
  stateFile: null,
  run: null,
  sessions: null,
  canary: null,
  drift: ["no healthy response through nginx: no response"],
  freeBytes: null,
  runs: [],
};

/** A run that failed before it knew a color. */
const EARLY = { time: "2026-11-27T03:00:00.000Z", verb: "deploy", result: "UsageError", message: "" };

test("before the first release, the status says so and names the command; once there is anything of a release, it says how to repair", () => {
  const first = /next: run the first release: npx tsx scripts\/deploy-blue-green\.mts/;
  assert.match(describeStatus(EMPTY), /^loop: not released yet$/m);
  assert.match(describeStatus(EMPTY), first);
  assert.match(describeStatus({ ...EMPTY, runs: [EARLY] }), first);
  const colors = (green: Partial<ColorStatus>) => ({ blue: ABSENT, green: { ...ABSENT, ...green } });
  const used: Partial<Status>[] = [
    { runs: [{ ...EARLY, result: DONE }] },
    { colors: colors({ container: "exited" }) },
    { colors: colors({ container: "unknown" }) },
    { colors: colors({ image: "sha256:1" }) },
    { link: "blue" },
    { stateFile: "blue" },
  ];
  for (const more of used) {
    const text = describeStatus({ ...EMPTY, ...more });
    assert.match(text, /^loop: neither color serves$/m);
    assert.match(text, "next: a release repairs what it can; a rollback repairs only what needs no build");
    assert.not.match(text, first);
  }
});

test("during a run, the status recommends no other", () => {
  const run = { held: true, verb: "deploy", pid: 1, since: "2026-11-27T03:00:00.000Z" };
  assert.not.match(describeStatus({ ...EMPTY, run }), "next:");
  assert.match(describeStatus({ ...EMPTY, run }), "a deploy is in progress");
});

test("a run that ended before it knew its colors shows none", () => {
  assert.match(describeRun(EARLY), /^2026-11-27 03:00 {2}deploy {19}UsageError/);
  assert.match(describeRun({ ...EARLY, to: "green" }), "? → green");
});

test.run();
