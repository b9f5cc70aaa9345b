import { test } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../lib/errors.ts";
import { parseOptions } from "../lib/options.ts";

test("no options is the plain run", () => {
  assert.equal(parseOptions([], true), { help: false, verbose: false });
});

test("--keep takes its three answers", () => {
  for (const keep of ["blue", "green", "abort"] as const) {
    assert.equal(parseOptions(["--keep", keep], true), { help: false, verbose: false, keep });
    assert.is(parseOptions([`--keep=${keep}`], true).keep, keep);
  }
});

test("anything else is refused by name", () => {
  const wrong = {
    "--kep blue": "--kep",
    "--keep purple": "purple",
    "--keep": "--keep",
    green: "green",
    "-x": "-x",
  };
  for (const [line, named] of Object.entries(wrong)) {
    try {
      parseOptions(line.split(" "), true);
      assert.unreachable(line);
    } catch (error) {
      assert.instance(error, UsageError);
      assert.match((error as Error).message, named);
    }
  }
  assert.throws(() => parseOptions(["--keep", "blue"], false), /--keep/);
});
test.run();
