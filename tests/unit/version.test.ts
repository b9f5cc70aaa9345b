import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAtLeast } from "../../lib/util/version.ts";

test("versions are compared by number", () => {
  assert.ok(isAtLeast("1.29.7", [1, 29, 7]));
  assert.ok(isAtLeast("1.30.0", [1, 29, 7]));
  assert.ok(isAtLeast("2.0.0", [1, 29, 7]));
  assert.not(isAtLeast("1.29.6", [1, 29, 7]));
  assert.not(isAtLeast("1.4.12", [1, 29, 7]));
  assert.ok(isAtLeast("v2.26.1-4", [2, 20]));
  assert.ok(isAtLeast("20.10.24+dfsg1", [20, 10]));
  assert.ok(isAtLeast("3", [2, 20]));
  assert.not(isAtLeast("2", [2, 20]));
  assert.not(isAtLeast("v1.29.2", [2, 20]));
  assert.not(isAtLeast("", [2, 20]));
});
test.run();
