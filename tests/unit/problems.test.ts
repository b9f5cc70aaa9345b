import { test } from "uvu";
import * as assert from "uvu/assert";
import { McpError } from "../../lib/errors.ts";
import { throwProblems } from "../../lib/mcp/problems.ts";

test("without problems a test passes; otherwise it fails with all of them", () => {
  throwProblems([]);
  try {
    throwProblems(["a: the tool was removed", "call of b: wrong"]);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, McpError);
    assert.is((error as McpError).details, "a: the tool was removed\ncall of b: wrong");
    assert.is((error as McpError).exitCode, 1);
  }
});
test.run();
