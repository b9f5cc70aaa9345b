import { mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { replaceFile, replaceLink } from "../../lib/util/atomic.ts";

const folder = () => tempFolder("atomic");

test("a file is replaced by a new one and never written in place", async () => {
  const path = join(await folder(), "state");
  await writeFile(path, "old");
  const before = await stat(path);
  await replaceFile(path, "new\n");
  assert.is(await readFile(path, "utf8"), "new\n");
  assert.is.not((await stat(path)).ino, before.ino);
});

test("leftovers of a killed run beside the target do no harm", async () => {
  const at = await folder();
  await writeFile(join(at, ".state.tmp"), "half");
  await symlink("nowhere", join(at, ".link.tmp"));
  await replaceFile(join(at, "state"), "whole");
  await replaceLink(join(at, "link"), "state");
  assert.equal((await readdir(at)).toSorted(), ["link", "state"]);
});

test("a link is replaced, even a dangling one", async () => {
  const link = join(await folder(), "link");
  for (const target of ["nowhere", "elsewhere"]) {
    await replaceLink(link, target);
    assert.is(await readlink(link), target);
  }
});

test("a target that cannot be replaced stays as it is", async () => {
  const at = await folder();
  await mkdir(join(at, "state"));
  try {
    await replaceFile(join(at, "state"), "new");
    assert.unreachable("a folder was replaced by a file");
  } catch (error) {
    assert.match(String(error), /EISDIR|ENOTEMPTY|EEXIST/);
  }
  assert.ok((await stat(join(at, "state"))).isDirectory());
});
test.run();
