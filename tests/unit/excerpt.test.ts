import { test } from "uvu";
import * as assert from "uvu/assert";
import { excerptWithout } from "../../lib/mcp/excerpt.ts";

test("a text becomes one line without control characters", () => {
  assert.is(excerptWithout(undefined)(" a\n\tb\u001b[31m "), "a b\\x1b[31m");
});

test("a long text is cut", () => {
  assert.is(excerptWithout(undefined)("x".repeat(301)), `${"x".repeat(300)}…`);
  assert.is(excerptWithout(undefined)("x".repeat(300)), "x".repeat(300));
});

test("the token is hidden wherever it is, also where the text is cut", () => {
  const excerpt = excerptWithout("s3cret-t0ken");
  assert.is(excerpt("Bearer s3cret-t0ken, s3cret-t0ken"), "Bearer [LOOP_TOKEN], [LOOP_TOKEN]");
  for (const length of [290, 295, 299, 1190, 1195])
    assert.not.match(excerpt(`${"x".repeat(length)}s3cret-t0ken`), "s3c");
});
test.run();
