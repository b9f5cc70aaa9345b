import { test } from "uvu";
import * as assert from "uvu/assert";
import { isTrialOf } from "../../lib/doctor/trial.ts";

test("only a project with the random name of a trial belongs to one", () => {
  assert.ok(isTrialOf({ project: "loop" }, "loop-doctor-0123abcd"));
  const others = [
    "",
    "loop",
    "loop-doctor",
    "loop-doctor-trial",
    "loop-doctor-0123abcd-x",
    "x-loop-doctor-0123abcd",
    "lo-doctor-0123abcd",
  ];
  for (const name of others) assert.not.ok(isTrialOf({ project: "loop" }, name), name);
});
test.run();
