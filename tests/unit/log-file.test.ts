import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { openLogFile } from "../../lib/run/log-file.ts";

test("lines are appended; a file that is too large is rotated and replaces the previously rotated one", async () => {
  const folder = await tempFolder("logfile");
  const path = join(folder, "made/blue-green.log");
  const warnings: string[] = [];
  for (const text of ["first", "second"]) openLogFile(path, (message) => warnings.push(message))(text);
  assert.is(await readFile(path, "utf8"), "first\nsecond\n");
  for (let i = 0; i < 3; i++) {
    await writeFile(path, "x".repeat(2 * 1024 * 1024));
    openLogFile(path, (message) => warnings.push(message))("new");
  }
  assert.equal(await readdir(join(folder, "made")), ["blue-green.log", "blue-green.log.1"]);
  assert.is((await stat(path)).size, 4);
  assert.equal(warnings, []);
  await rm(folder, { recursive: true });
});

test("a log file that cannot be written causes one warning and no error", () => {
  const warnings: string[] = [];
  const write = openLogFile("/proc/none/x.log", (message) => warnings.push(message));
  write("one");
  write("two");
  assert.is(warnings.length, 1);
  assert.match(warnings[0] ?? "", "cannot write the log file /proc/none/x.log");
});
test.run();
