import { test } from "uvu";
import * as assert from "uvu/assert";
import { make, ok, problem } from "../../lib/doctor/finding.ts";
import { InterruptedError, UsageError } from "../../lib/errors.ts";
import { createLog } from "../../lib/run/log.ts";

const quiet = () => ({ log: createLog(), signal: new AbortController().signal });

test("an error of a release is a problem, with its reason and next step", async () => {
  const error = new UsageError("It is wrong", { details: "a\nb\nc\nd", next: "Correct it." });
  const finding = await make("it", quiet(), () => Promise.reject(error));
  assert.equal(finding, { check: "it", ...problem("It is wrong: b\nc\nd", "Correct it.") });
});

test("an unexpected error is a problem", async () => {
  const { level, finding } = await make("it", quiet(), () => Promise.reject(new Error("bug")));
  assert.equal([level, finding], ["problem", "Unexpected: bug"]);
});

test("a warning of a release's check is one of the doctor", async () => {
  const warned = await make("it", quiet(), async (log) => {
    log.warn("careful");
    return ok("fine");
  });
  assert.equal(warned, { check: "it", level: "warning", finding: "careful" });
});

test("a check that a signal interrupts has no finding", async () => {
  const interruption = new AbortController();
  const looking = make("it", { log: createLog(), signal: interruption.signal }, async () => {
    interruption.abort(new InterruptedError("SIGINT"));
    return problem("its command was killed", "");
  });
  await looking.then(
    () => assert.unreachable(),
    (error) => assert.instance(error, InterruptedError),
  );
});

test.run();
