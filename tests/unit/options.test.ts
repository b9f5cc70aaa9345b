import { test } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../lib/errors.ts";
import { parseOptions } from "../../lib/run/options.ts";

test("without options, all flags are off", () => {
  assert.equal(parseOptions([], "deploy"), {
    help: false,
    verbose: false,
    quiet: false,
    dryRun: false,
    acceptEmptyVault: false,
  });
});

test("both scripts accept --accept-empty-vault", () => {
  for (const script of ["deploy", "rollback"] as const)
    assert.is(parseOptions(["--accept-empty-vault"], script).acceptEmptyVault, true);
});

test("--keep accepts its four values", () => {
  for (const keep of ["serving", "blue", "green", "abort"] as const) {
    assert.is(parseOptions(["--keep", keep], "deploy").keep, keep);
    assert.is(parseOptions([`--keep=${keep}`], "deploy").keep, keep);
  }
});

test("anything else is rejected, and the error names it", () => {
  const wrong = {
    "--kep blue": "--kep",
    "--keep purple": "purple",
    "--keep": "--keep",
    green: "green",
    "-x": "-x",
    "--keep blue --keep green": "--keep is given twice",
    "--verbose --verbose": "--verbose is given twice",
    "--quiet --verbose": "exclude each other",
  };
  for (const [line, named] of Object.entries(wrong)) {
    try {
      parseOptions(line.split(" "), "deploy");
      assert.unreachable(line);
    } catch (error) {
      assert.instance(error, UsageError);
      assert.match((error as Error).message, named);
    }
  }
  assert.throws(() => parseOptions(["--keep", "blue"], "rollback"), /--keep/);
});

test("a misspelled option gets a suggestion", () => {
  for (const [given, meant] of Object.entries({
    "--kep": "--keep",
    "--verbos": "--verbose",
    "--qiet": undefined,
  })) {
    try {
      parseOptions([given], "deploy");
      assert.unreachable(given);
    } catch (error) {
      assert.is((error as UsageError).next.match(/Did you mean (\S+)\?/)?.[1], meant);
    }
  }
});
test.run();
