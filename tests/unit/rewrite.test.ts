import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { rewrite } from "../../bench/testbed/rewrite.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";

test("a pattern is replaced everywhere, and one that matches nothing throws and leaves the file", async () => {
  const folder = await tempFolder("rewrite");
  const file = join(folder, "x.conf");
  await writeFile(file, "keepalive 1;\nkeepalive 2;\n");
  await rewrite(file, /keepalive \d+;/g, "off;");
  assert.is(await readFile(file, "utf8"), "off;\noff;\n");
  try {
    await rewrite(file, /keepalive \d+;/g, "on;");
    assert.unreachable();
  } catch (error) {
    assert.match(String(error), "matches nothing in");
  }
  assert.is(await readFile(file, "utf8"), "off;\noff;\n");
  await rm(folder, { recursive: true });
});
test.run();
