import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Minute, Second } from "../../lib/release/rates.ts";
import type { Seen } from "../../lib/release/watch.ts";
import { lineOf, painted, screenOf, sparkline } from "../../lib/release/watch-text.ts";

/** A minute whose last seconds are these, as [responses, errors]; nothing is known of the others. */
function minute(...last: [responses: number, errors?: number][]): Minute {
  const seconds: (Second | undefined)[] = last.map(([responses, errors = 0]) => ({ responses, errors }));
  return [...Array.from({ length: 60 - seconds.length }, () => undefined), ...seconds];
}

const NOW = Date.UTC(2026, 10, 25, 3, 0, 30);

const seen = (more: Partial<Seen> = {}): Seen => ({
  project: "loop",
  nowMs: NOW,
  serving: "green",
  kept: undefined,
  canary: undefined,
  containers: { blue: "exited", green: "running", nginx: "running", auth: "running" },
  traffic: { blue: minute(), green: minute() },
  run: undefined,
  sessions: undefined,
  problems: [],
  last: undefined,
  ...more,
});

/** A release in its verification. */
const release = (more: Partial<NonNullable<Seen["run"]>> = {}): Partial<Seen> => ({
  containers: { blue: "running", green: "running", nginx: "running", auth: "running" },
  serving: "blue",
  run: {
    verb: "deploy",
    from: "green",
    to: "blue",
    verified: undefined,
    sinceMs: NOW - 34_000,
    step: { name: "verify blue through nginx", sinceMs: NOW - 12_000 },
    ...more,
  },
});

const LARGE = { columns: 100, rows: 40 };
const screen = (more: Partial<Seen> = {}, size = LARGE): string => screenOf(seen(more), size).join("\n");

test("the sparkline: a bar per second, the lowest line without responses, a space where nothing is known", () => {
  const known = minute([0], [1], [50], [99], [100]);
  assert.is(sparkline(known, 100), `${" ".repeat(55)}▁▂▅██`);
  assert.is(sparkline(minute([100, 1], [100]), 100).trim(), "✗█");
  assert.is(sparkline(minute([0]), 1).trim(), "▁");
});

test("without data, nothing is invented: no rate, no bar, and nginx and Docker are unknown", () => {
  const unknown = { blue: "unknown", green: "unknown", nginx: "unknown", auth: "unknown" } as const;
  const text = screen({ serving: undefined, containers: unknown, problems: ["nginx does not answer: X"] });
  assert.match(text, /^nginx does not answer · loop · \d\d:\d\d:\d\d\n! nginx does not answer: X\n/);
  assert.match(text, /^blue {6}-\/s 5xx 0 {4}unknown$/m);
  assert.match(text, "no earlier runs");
  assert.match(text, "nginx unknown · auth unknown");
  assert.not.match(text, /[▁-█]/);
});

test("the rate is the mean of the last five seconds, and 5xx are counted over the minute", () => {
  const green = minute([900, 4], [10], [10], [20], [20], [0, 0]);
  assert.match(screen({ traffic: { blue: minute(), green } }), /^green {4}12\/s 5xx 4 {4}serves$/m);
  const slow = minute([0], [1], [0], [1], [0]);
  assert.match(screen({ traffic: { blue: slow, green } }), /^blue {4}0\.4\/s 5xx 0 {4}exited$/m);
  assert.match(screen({ traffic: { blue: slow, green } }), "responses per second, 900 at most");
});

test("a release: who serves, the step and its time, and the new, the kept and the draining color", () => {
  assert.match(screen(release()), "deploy green → blue, 34 s\n… verify blue through nginx 12 s");
  const role = (more: Partial<Seen>, color: string): string | undefined =>
    screen(more).match(new RegExp(`^${color} .* 5xx 0 +(.*)$`, "m"))?.[1];
  assert.equal([role(release(), "blue"), role(release(), "green")], ["serves", "running"]);
  assert.is(role({ ...release(), kept: "green" }, "green"), "kept for its sessions");
  assert.is(role({ ...release({ verified: true }), kept: "green" }, "green"), "draining");
  assert.is(role({ ...release(), serving: "green", canary: "blue" }, "blue"), "canary");
  assert.is(role({ ...release(), serving: "green" }, "blue"), "new");
  assert.is(role(release({ verb: "end-sessions", to: undefined }), "green"), "draining");
  assert.is(role({ kept: "blue" }, "blue"), "exited", "somebody has stopped it");
  const dead = { ...seen().containers, green: "exited" } as const;
  assert.is(role({ containers: dead }, "green"), "serves, exited");
  assert.match(screen(release({ step: undefined, to: undefined })), /^deploy, 34 s$/m);
});

test("the sessions of a kept color and the last run are shown", () => {
  const sessions = {
    color: "blue",
    sinceMs: NOW - 60_000,
    usedMs: NOW - 4000,
    inUse: 3,
    open: 2,
    untilMs: NOW + 840_000,
    due: false,
  } as const;
  assert.match(
    screen({ sessions }),
    /^blue still serves its sessions: last used 4 s ago, 2 open requests, until \d\d:\d\d at the latest$/m,
  );
  const before = { responses: 900, errors: 1, p95: 0.1 };
  const last = {
    time: "2026-11-25T02:59:00.000Z",
    verb: "deploy",
    from: "blue",
    to: "green",
    result: "done",
    message: "",
    seconds: 41.2,
    traffic: { before, after: { responses: 412, errors: 0, p95: 0.1 } },
  } as const;
  assert.match(
    screen({ last }),
    /^last run: 2026-11-25 02:59 {2}deploy {4}blue → green {3}done {10}41\.2 s {2}412 responses, 0 with 5xx$/m,
  );
});

const busy: Partial<Seen> = {
  ...release(),
  problems: ["Docker does not answer: Cannot connect"],
  traffic: { blue: minute([412]), green: minute([12_345, 99]) },
};

test("in a window of 20 by 5: what serves, what is wrong, both rates with 5xx, and the step with its time", () => {
  assert.equal(screenOf(seen(busy), { columns: 20, rows: 5 }), [
    "blue serves · loop ·",
    "! Docker does not an",
    "blue    412/s 5xx 0 ",
    "green 12345/s 5xx 99",
    "… verify blue t 12 s",
  ]);
});

test("no window is too small: never more rows, never more columns", () => {
  for (const columns of [1, 2, 3, 19, 20, 62, 80, 300])
    for (const rows of [1, 2, 5, 12, 60]) {
      const lines = screenOf(seen(busy), { columns, rows });
      assert.ok(lines.length <= rows, `${lines.length} lines in ${rows} rows`);
      for (const line of lines) assert.ok(line.length <= columns, `${line.length} in ${columns}: ${line}`);
    }
  assert.match(screenOf(seen(busy), { columns: 300, rows: 1 })[0] ?? "", /^blue serves/);
});

test("a window narrower than a minute shows the latest seconds", () => {
  const green = minute([0], ...Array.from({ length: 9 }, (): [number] => [100]), [0]);
  const lines = screenOf(seen({ traffic: { blue: minute(), green } }), { columns: 12, rows: 40 });
  assert.ok(lines.includes("  █████████▁"), lines.join("\n"));
});

test("wide characters count as two columns", () => {
  const problem = "保管庫 X";
  const [, line] = screenOf(seen({ problems: [problem] }), { columns: 7, rows: 2 });
  assert.is(line, "! 保管");
  assert.is(screenOf(seen({ problems: ["🙂🙂"] }), { columns: 5, rows: 2 })[1], "! 🙂");
  assert.is(screenOf(seen({ problems: ["→▁✗éß"] }), { columns: 7, rows: 2 })[1], "! →▁✗éß");
});

test("control characters in foreign text are escaped, and it stays in its line", () => {
  const foreign = "x\u001b[2J\u009b1A\r\u202e\nblue serves";
  const more = { ...release({ step: { name: foreign, sinceMs: NOW } }), problems: [foreign] };
  for (const text of [screen(more), lineOf(seen(more))]) {
    assert.not.match(text, /[^\P{C}\n]/u);
    assert.is(text.match(/^blue serves/gm)?.length ?? 0, text.includes("\n") ? 1 : 0);
    assert.match(text, "x\\x1b[2J\\x9b1A");
  }
});

test("one line: time, serving color, both rates, the run with its step, and what is wrong", () => {
  assert.is(
    lineOf(seen(busy)),
    "2026-11-25T03:00:30.000Z blue serves · loop · blue 412/s 5xx 0 serves · green 12345/s 5xx 99 running · " +
      "deploy green → blue, 34 s: verify blue through nginx 12 s · ! Docker does not answer: Cannot connect",
  );
});

test("5xx and problems are painted, and nothing else changes", () => {
  assert.is(painted("green  12/s 5xx 3  serves"), "green  12/s \u001b[31m5xx 3\u001b[39m  serves");
  assert.is(painted("  ▁✗✗▁"), "  ▁\u001b[31m✗✗\u001b[39m▁");
  assert.is(painted("! gone"), "\u001b[33m! gone\u001b[39m");
  assert.is(painted("green  12/s 5xx 0  running"), "green  12/s 5xx 0  running");
});
test.run();
