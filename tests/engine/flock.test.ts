import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { MECHANISMS, tryLock, waitForLock } from "../../lib/run/flock.ts";
import { ROOT } from "../../lib/settings.ts";
import { allow } from "../mechanisms.ts";
import { suite } from "../suite.ts";

const locks = suite<{ folder: string; file: string; path: string }>("mechanisms of the lock");
locks.before.each(async (context) => {
  context.folder = await tempFolder("flock");
  context.file = join(context.folder, "lock");
  context.path = process.env.PATH ?? "";
  await writeFile(context.file, "");
});
locks.after.each(async ({ folder, path }) => {
  process.env.PATH = path;
  await rm(folder, { recursive: true });
});

for (const mechanism of MECHANISMS) {
  locks(
    `${mechanism.command} alone locks, is refused, and gets the lock when it is free`,
    async (context) => {
      const { folder, file, path } = context;
      await allow(folder, [mechanism], path);
      const [first, second] = [openSync(file, "r+"), openSync(file, "r+")];
      try {
        assert.is(await tryLock(first), true);
        assert.is(await tryLock(first), true, "it holds the lock already");
        assert.is(await tryLock(second), false);
        assert.is(await waitForLock(second, 0), false);
        setTimeout(() => closeSync(first), 300);
        assert.is(await waitForLock(second, 5), true);
      } finally {
        closeSync(second);
      }
    },
  );

  locks(`what ${mechanism.command} locks is locked for every other`, async ({ folder, file, path }) => {
    await allow(folder, [mechanism], path);
    const [first, second] = [openSync(file, "r+"), openSync(file, "r+")];
    try {
      assert.is(await tryLock(first), true);
      for (const other of MECHANISMS.filter((one) => one !== mechanism)) {
        await allow(folder, [other], path);
        assert.is(await tryLock(second), false, other.command);
      }
    } finally {
      closeSync(first);
      closeSync(second);
    }
  });
}

locks("a mechanism that does not work is passed over", async ({ folder, file, path }) => {
  const perl = MECHANISMS.filter(({ command }) => command === "perl");
  await allow(folder, perl, path);
  // As one that knows no descriptors would answer.
  await writeFile(join(process.env.PATH ?? "", "flock"), "#!/bin/sh\necho usage >&2\nexit 64\n", {
    mode: 0o755,
  });
  const descriptor = openSync(file, "r+");
  assert.is(await tryLock(descriptor), true);
  closeSync(descriptor);
});

locks("python3 imports nothing from the working directory", async ({ folder, file, path }) => {
  const python = MECHANISMS.filter(({ command }) => command === "python3");
  await allow(folder, python, path);
  await writeFile(join(folder, "fcntl.py"), `open(${JSON.stringify(join(folder, "trap"))}, "w")\n`);
  const script = `
    import { openSync } from "node:fs";
    import { tryLock } from ${JSON.stringify(join(ROOT, "lib/run/flock.ts"))};
    console.log(await tryLock(openSync(${JSON.stringify(file)}, "r+")));
  `;
  const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
  const args = ["--import", loader, "--input-type=module", "-e", script];
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
  assert.is(stdout, "true\n", stderr);
  assert.not(existsSync(join(folder, "trap")));
});

locks("without any, the error names them", async ({ folder, file, path }) => {
  await allow(folder, [], path);
  const descriptor = openSync(file, "r+");
  try {
    await tryLock(descriptor);
    assert.unreachable();
  } catch (error) {
    assert.match(String(error), "none of flock, perl, python3 is in PATH: install one of them");
  } finally {
    closeSync(descriptor);
  }
});
locks.run();
