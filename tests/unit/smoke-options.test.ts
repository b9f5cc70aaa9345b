import { test } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../lib/errors.ts";
import { parseSmokeOptions, type SmokeOptions } from "../../lib/mcp/smoke-options.ts";

const NEW = "http://127.0.0.1:8085";

function parse(line: string, env: NodeJS.ProcessEnv = { LOOP_URL: NEW }): SmokeOptions {
  const options = parseSmokeOptions(line.split(" ").filter(Boolean), env);
  if (options === "help") throw new Error("help");
  return options;
}

test("the environment of a release is enough", () => {
  const options = parse("", {
    LOOP_URL: NEW,
    LOOP_PREVIOUS_URL: "http://127.0.0.1:8082",
    LOOP_TOKEN: "a.b-c~/+=",
  });
  assert.is(options.endpoint.href, `${NEW}/mcp`);
  assert.is(options.previous?.href, "http://127.0.0.1:8082/mcp");
  const { endpoint, previous, ...rest } = options;
  assert.equal(rest, { token: "a.b-c~/+=", allowRemoved: false, seconds: 20 });
});

test("empty variables count as unset", () => {
  const options = parse("", { LOOP_URL: NEW, LOOP_PREVIOUS_URL: "", LOOP_TOKEN: "" });
  assert.not.ok("previous" in options);
  assert.not.ok("token" in options);
});

test("an option overrides its variable", () => {
  const line =
    "--url http://a/base/ --previous-url https://b --path /x/mcp --calls c.json --allow-removed --seconds 0.5";
  const options = parse(line, { LOOP_URL: NEW, LOOP_PREVIOUS_URL: NEW });
  assert.is(options.endpoint.href, "http://a/base/x/mcp");
  assert.is(options.previous?.href, "https://b/x/mcp");
  assert.is(options.calls, "c.json");
  assert.is(options.allowRemoved, true);
  assert.is(options.seconds, 0.5);
});

test("--help needs no address", () => {
  assert.is(parseSmokeOptions(["-h"], {}), "help");
});

test("anything else is rejected, and the error names it", () => {
  for (const [line, named] of [
    ["--ulr x", "--ulr"],
    ["extra", "extra"],
    ["--seconds 0", "--seconds"],
    ["--seconds soon", "--seconds"],
    ["--path mcp", "mcp"],
    ["--path /mcp?x", "/mcp?x"],
    ["--url ftp://a", "--url"],
    ["--url 127.0.0.1:8085", "--url"],
    ["--previous-url http://a?b", "--previous-url"],
  ] as const) {
    try {
      parse(line);
      assert.unreachable(line);
    } catch (error) {
      assert.instance(error, UsageError, line);
      assert.match((error as Error).message, named);
    }
  }
  assert.throws(() => parse("", {}), /--url nor LOOP_URL/);
});

test("no error quotes a password or the token", () => {
  for (const env of [
    { LOOP_URL: "http://me:s3cret@a" },
    { LOOP_URL: "http://s3cret@a" },
    { LOOP_URL: NEW, LOOP_TOKEN: "s3cret\n" },
  ]) {
    try {
      parse("", env);
      assert.unreachable();
    } catch (error) {
      const { message, next, details } = error as UsageError;
      assert.instance(error, UsageError);
      assert.not.match(message + next + details, "s3cret");
    }
  }
});
test.run();
