import { test } from "uvu";
import * as assert from "uvu/assert";
import { inWords, type Notice } from "../../lib/run/notice.ts";

const DONE: Notice = {
  result: "done",
  exitCode: 0,
  verb: "deploy",
  project: "loop",
  from: "blue",
  to: "green",
  seconds: 42,
  message: "Released blue → green: loop-api (sha256:1234)",
};
const FAILED: Notice = {
  ...DONE,
  result: "HealthError",
  exitCode: 1,
  message: "green did not become healthy",
};
const traffic = {
  after: { responses: 412, errors: 0, p95: 0.01 },
  before: { responses: 388, errors: 3, p95: 0.01 },
};

const textOf = (notice: Notice): string => {
  const { title, details } = inWords(notice);
  return `${title}\n${details}`;
};

test("a successful run is its result and its figures", () => {
  assert.is(textOf(DONE), "Done: deploy of loop, blue → green\n42.0 s");
  assert.is(
    textOf({ ...DONE, traffic, cut: 3 }),
    "Done: deploy of loop, blue → green\n42.0 s · 412 responses, 0 with 5xx (before: 388, 3) · 3 requests interrupted",
  );
  const one = { ...traffic, after: { responses: 1, errors: 1, p95: 0.01 } };
  assert.match(
    textOf({ ...DONE, traffic: one, cut: 1 }),
    "1 response, 1 with 5xx (before: 388, 3) · 1 request interrupted",
  );
});

test("a failed run says why, and whether somebody has to act", () => {
  assert.is(
    textOf(FAILED),
    "Failed: deploy of loop, blue → green (health error, exit code 1)\n42.0 s · green did not become healthy",
  );
  assert.is(inWords(FAILED).level, "failed");
  const manual = inWords({ ...FAILED, result: "NothingToRollBackToError", exitCode: 3 });
  assert.match(manual.title, "(nothing to roll back to error, exit code 3: manual intervention needed)");
  assert.is(manual.level, "manual");
  const early = { ...FAILED, from: undefined, to: undefined };
  assert.match(textOf(early), /^Failed: deploy of loop \(health error, exit code 1\)\n/);
});

test("a run that a signal reached too late is done, and says so", () => {
  const late = { ...DONE, result: "done, interrupted", exitCode: 143, message: "do not run it again" };
  assert.is(
    textOf(late),
    "Done: deploy of loop, blue → green (interrupted, exit code 143)\n42.0 s · do not run it again",
  );
  assert.is(inWords(late).level, "done");
});

test("foreign text in a message adds no line and no control character", () => {
  const message = "see:\r\n\tDone: deploy of other\u2028\u2029\u0085\v\f\x1b[2J\u202eend";
  assert.is(
    inWords({ ...FAILED, message }).details,
    "42.0 s · see: Done: deploy of other \\x85 \\x1b[2J\\u202eend",
  );
  assert.is(inWords({ ...FAILED, result: "Odd\nError" }).title.includes("\n"), false);
});

test("a long message is cut between characters, and no figure is", () => {
  const { details } = inWords({ ...FAILED, traffic, cut: 2, message: "😀".repeat(5000) });
  assert.match(details, /^42\.0 s · 412 responses, .* · 2 requests interrupted · 😀+…$/u);
  assert.is([...details].length, 600);
  assert.is([...inWords({ ...FAILED, project: "p".repeat(5000) }).title].length, 200);
});
test.run();
