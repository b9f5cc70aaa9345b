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

test("each script has its own options", () => {
  const { image, ifChanged } = parseOptions(["--image", "me/api:1", "--if-changed"], "deploy");
  assert.equal([image, ifChanged], ["me/api:1", true]);
  assert.is(parseOptions(["--to", "12"], "rollback").to, 12);
  assert.is(parseOptions(["--list"], "rollback").list, true);
  for (const args of [["--image", "me/api:1"], ["--if-changed"]])
    assert.throws(() => parseOptions(args, "rollback"), args[0]);
  for (const args of [["--to", "1"], ["--list"]]) assert.throws(() => parseOptions(args, "deploy"), args[0]);
  for (const wrong of ["0", "-1", "1.5", "v3", "release-3", ""])
    assert.throws(() => parseOptions([`--to=${wrong}`], "rollback"), /--to takes the number of a release/);
  assert.throws(() => parseOptions(["--list", "--to", "1"], "rollback"), /exclude each other/);
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
