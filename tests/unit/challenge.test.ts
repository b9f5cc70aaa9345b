import { test } from "uvu";
import * as assert from "uvu/assert";
import { asksForToken } from "../../lib/mcp/challenge.ts";

test("a Bearer challenge asks for a token", () => {
  for (const header of [
    "Bearer",
    "bearer",
    'Bearer realm="loop"',
    'Bearer error="invalid_token", error_description="a, \\"b\\""',
    'Bearer resource_metadata="https://loop.example/.well-known/oauth-protected-resource"',
    'Basic realm="a", Bearer realm="b"',
    'Bearer realm="b", Basic realm="a"',
  ])
    assert.is(asksForToken(header), true, header);
});

test("anything else does not", () => {
  for (const header of [
    null,
    "",
    'Basic realm="loop"',
    'Basic realm="a, Bearer, b"',
    "Bearer abc123==",
    "Bearer realm=",
    "BearerToken",
    'Bearer resource_metadata="/relative"',
    'Bearer resource_metadata="javascript:alert(1)"',
  ])
    assert.is(asksForToken(header), false, String(header));
});
test.run();
