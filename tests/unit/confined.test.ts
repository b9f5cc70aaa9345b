import { mkdir, readdir, readFile, realpath, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { confined } from "../../lib/util/confined.ts";
import { suite } from "../suite.ts";

const confinement = suite<{ vault: string; outside: string; folder: string }>("confined");
confinement.before.each(async (context) => {
  const top = await realpath(await tempFolder("confined"));
  const [vault, outside] = [join(top, "vault"), join(top, "outside")];
  Object.assign(context, { vault, outside, folder: join(vault, "a/_build") });
  for (const path of [join(vault, "a/_build"), outside]) await mkdir(path, { recursive: true });
});

confinement(
  "a link in any part of the path is rejected, even one that leads back inside",
  async (context) => {
    const { vault, outside } = context;
    const read = (folder: string) => () =>
      confined(folder, [vault], true, (here) => here.read("state", 100)?.toString());
    for (const target of [outside, join(vault, "a")]) {
      await symlink(target, join(vault, "b"));
      assert.throws(read(join(vault, "b/_build")), /a container may have placed a symbolic link there/);
      assert.throws(read(join(vault, "b")), /a container may have placed a symbolic link there/);
      await rm(join(vault, "b"));
    }
    assert.equal(await readdir(outside), []);
  },
);

confinement(
  "an owner's link to the vault is followed; a link to a folder inside the vault is rejected",
  async (context) => {
    const { vault, outside } = context;
    await symlink(vault, join(outside, "alias"));
    await symlink(join(vault, "a"), join(outside, "deep"));
    confined(join(outside, "alias/a/_build"), [join(outside, "alias")], true, (here) =>
      here.replace("state", "x"),
    );
    assert.is(await readFile(join(vault, "a/_build/state"), "utf8"), "x");
    assert.throws(
      () => confined(join(outside, "deep/_build"), [vault], true, (here) => here.replace("state", "y")),
      /use that folder's own path/,
    );
  },
);

confinement("a file is identified by its inode, and a link in its place is rejected", async (context) => {
  const { vault, outside, folder } = context;
  const identity = () => confined(folder, [vault], false, (here) => here.identity("lock"));
  assert.is(identity(), undefined);
  await writeFile(join(folder, "lock"), "");
  const { dev, ino } = await stat(join(folder, "lock"));
  assert.equal(identity(), { dev, ino });
  await writeFile(join(outside, "file"), "");
  for (const target of [join(outside, "file"), "/dev/null"]) {
    await rm(join(folder, "lock"));
    await symlink(target, join(folder, "lock"));
    assert.throws(identity, /ELOOP/);
  }
});

confinement("names that lead to another folder are rejected", ({ vault, folder }) => {
  for (const name of ["../state", "a/b", "..", "/etc/passwd"])
    assert.throws(
      () => confined(folder, [vault], false, (here) => here.read(name, 10)),
      /is not a bare file name/,
    );
});
confinement.run();
