import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { getActiveColor, getInactiveColor, markActive } from "../lib/color.ts";
import { StateFileError } from "../lib/errors.ts";

const stateFile = async () => join(await mkdtemp(join(tmpdir(), "loop-test-color-")), "_build/.active-color");

test("no state file means blue", async () => {
  assert.is(await getActiveColor(await stateFile()), "blue");
});

test("marking makes the folder; what is marked is read again", async () => {
  const file = await stateFile();
  for (const color of ["green", "blue"] as const) {
    await markActive(file, color);
    assert.is(await readFile(file, "utf8"), `${color}\n`);
    assert.is(await getActiveColor(file), color);
  }
});

test("white space around the color does not matter, anything else is an error that names file and content", async () => {
  const file = await stateFile();
  await markActive(file, "blue");
  await writeFile(file, "  green \r\n");
  assert.is(await getActiveColor(file), "green");
  for (const content of ["", "\n", "Blue", "bluegreen", "blue green", "blue\u0000", "{}"]) {
    await writeFile(file, content);
    try {
      await getActiveColor(file);
      assert.unreachable(JSON.stringify(content));
    } catch (error) {
      assert.instance(error, StateFileError);
      assert.match((error as Error).message, file);
      assert.match((error as Error).message, JSON.stringify(content));
    }
  }
});

test("a state file that is a folder is an error, not an assumption", async () => {
  const file = await stateFile();
  await mkdir(file, { recursive: true });
  try {
    await getActiveColor(file);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, StateFileError);
  }
});

test("a state file whose folder can never be made is an error, and no endless try", async () => {
  try {
    await markActive("/proc/none/_build/.active-color", "blue");
    assert.unreachable();
  } catch (error) {
    assert.instance(error, StateFileError);
  }
});

test("the inactive color is the other one", () => {
  assert.is(getInactiveColor("blue"), "green");
  assert.is(getInactiveColor("green"), "blue");
});
test.run();
