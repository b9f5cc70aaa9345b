import { appendFile, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { getInactiveColor } from "../../lib/color.ts";
import { StateFileError } from "../../lib/errors.ts";
import {
  getActiveColor,
  initializeColorRecord,
  readStateFile,
  type StateFiles,
  writeActiveColor,
} from "../../lib/release/state-file.ts";
import { createLog } from "../../lib/run/log.ts";
import type { Settings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

interface TestContext {
  files: StateFiles & { vaultPath: string };
  warnings: string[];
  mark(color: "blue" | "green"): Promise<void>;
  initialize(fallback?: "blue" | "green"): Promise<void>;
}

const colors = suite<TestContext>("color");
colors.before.each(async (testContext) => {
  const folder = await tempFolder("color");
  for (const name of ["vault", "state"]) await mkdir(join(folder, name));
  const files = {
    recordFile: join(folder, "state/active-color"),
    activeColorFile: join(folder, "vault/_build/.active-color"),
    vaultPath: join(folder, "vault"),
    oauthDataPath: join(folder, "oauth"),
  };
  const warnings: string[] = [];
  const log = { ...createLog(), warn: (message: string) => warnings.push(message) };
  const context = { settings: files as Settings, log };
  Object.assign(testContext, {
    files,
    warnings,
    mark: (color: "blue" | "green") => writeActiveColor(context, color),
    initialize: (fallback?: "blue" | "green") => initializeColorRecord(context, fallback),
  });
});

async function errorMessageOf(act: Promise<unknown>): Promise<string> {
  try {
    await act;
  } catch (error) {
    assert.instance(error, StateFileError);
    return (error as Error).message;
  }
  return assert.unreachable("nothing was thrown") as never;
}

colors("if no color was ever marked, the active color is blue", async ({ files }) => {
  assert.is(await getActiveColor(files), "blue");
});

colors(
  "marking creates the folder and writes the color record and the state file",
  async ({ files, mark }) => {
    for (const color of ["green", "blue"] as const) {
      await mark(color);
      for (const file of [files.recordFile, files.activeColorFile])
        assert.is(await readFile(file, "utf8"), `${color}\n`);
      assert.is(await getActiveColor(files), color);
      assert.is(await readStateFile(files), color);
    }
    assert.equal(await readdir(join(files.vaultPath, "_build")), [".active-color"]);
  },
);

colors("whitespace around the color is ignored; anything else is an error", async ({ files, mark }) => {
  await mark("blue");
  for (const file of [files.recordFile, files.activeColorFile]) await writeFile(file, "  green \r\n");
  assert.equal([await getActiveColor(files), await readStateFile(files)], ["green", "green"]);
  for (const content of ["", "\n", "Blue", "bluegreen", "blue green", "blue\u0000", "{}"]) {
    for (const file of [files.recordFile, files.activeColorFile]) await writeFile(file, content);
    for (const message of [
      await errorMessageOf(getActiveColor(files)),
      await errorMessageOf(readStateFile(files)),
    ])
      assert.match(message, JSON.stringify(content));
  }
});

colors("the state file has no effect once there is a color record", async ({ files, mark }) => {
  await mark("green");
  for (const content of ["blue\n", "purple"]) {
    await writeFile(files.activeColorFile, content);
    assert.is(await getActiveColor(files), "green");
  }
  await rm(files.activeColorFile);
  assert.is(await getActiveColor(files), "green");
});

colors("a new color record is initialized from the state file", async (context) => {
  const { files, initialize, warnings } = context;
  await mkdir(join(files.vaultPath, "_build"));
  await writeFile(files.activeColorFile, "purple\n");
  await initialize();
  assert.match(warnings.join(), 'says "purple');
  assert.is(await getActiveColor(files), "blue");
  await writeFile(files.activeColorFile, "green\n");
  await initialize();
  await writeFile(files.activeColorFile, "blue\n");
  await initialize();
  assert.is(await getActiveColor(files), "green");
});

colors(
  "a color from another state file is used only if there is neither a color record nor a state file",
  async ({ files, initialize }) => {
    await initialize("green");
    assert.is(await getActiveColor(files), "green");
    await initialize("blue");
    assert.is(await getActiveColor(files), "green", "an existing record must not be overwritten");
    await rm(files.recordFile);
    await mkdir(join(files.vaultPath, "_build"));
    await writeFile(files.activeColorFile, "blue\n");
    await initialize("green");
    assert.is(await getActiveColor(files), "blue");
  },
);

colors("a color record that cannot be written is an error; a state file, a warning", async (context) => {
  const { files, mark, warnings } = context;
  await mkdir(join(files.activeColorFile, "not empty"), { recursive: true });
  await mark("green");
  assert.match(warnings.join(), `the state file ${files.activeColorFile} was not written: `);
  assert.is(await getActiveColor(files), "green");
  await mkdir(`${files.recordFile}.d`);
  files.recordFile = "/proc/none/active-color";
  assert.match(await errorMessageOf(mark("blue")), "Cannot write blue to the color record");
});

/** What a container could put in place of the state file or its folder. */
const ATTACKS: Record<string, string> = {
  "a link to a file": "ln -s ../../outside/file _build/.active-color",
  "a link to nowhere": "ln -s ../../outside/new _build/.active-color",
  "a FIFO": "mkfifo _build/.active-color",
  "an empty folder": "mkdir _build/.active-color",
  "a huge file": "truncate -s 1T _build/.active-color",
  "a file in a linked folder": "rmdir _build && ln -s ../outside _build",
};
for (const [what, attack] of Object.entries(ATTACKS)) {
  colors(
    `a state file replaced with ${what} neither exposes other files nor blocks marking`,
    async (context) => {
      const { files, mark, warnings } = context;
      const outside = join(files.vaultPath, "../outside");
      await mkdir(outside);
      await writeFile(join(outside, "file"), "blue\n");
      await writeFile(join(outside, ".active-color"), "blue\n");
      const shell = $({ quiet: true, cwd: files.vaultPath });
      await shell`mkdir _build && sh -c ${attack}`;
      const read = await readStateFile(files).catch((error) => String(error));
      assert.match(String(read), /Cannot read the state file/);
      const cwd = process.cwd();
      await mark("green");
      assert.is(process.cwd(), cwd);
      assert.is(await getActiveColor(files), "green");
      const isLink = what === "a file in a linked folder";
      assert.is(warnings.length, isLink ? 1 : 0, warnings.join());
      if (!isLink) assert.is(await readStateFile(files), "green");
      assert.equal((await readdir(outside)).toSorted(), [".active-color", "file"]);
      for (const name of ["file", ".active-color"])
        assert.is(await readFile(join(outside, name), "utf8"), "blue\n");
    },
  );
}

colors(
  "the next run removes temporary files of a killed run beside the state file",
  async ({ files, mark }) => {
    await mark("green");
    const folder = join(files.vaultPath, "_build");
    await appendFile(join(folder, "..active-color.0123456789abcdef.tmp"), "half");
    await symlink("/etc/passwd", join(folder, "..active-color.0123456789abcdee.tmp"));
    await writeFile(join(folder, "..active-color.mine.tmp"), "");
    await mark("blue");
    assert.equal(
      (await readdir(folder)).toSorted(),
      ["..active-color.0123456789abcdee.tmp", "..active-color.mine.tmp", ".active-color"].toSorted(),
    );
  },
);

colors("marking works in a deleted working directory", async ({ files, mark }) => {
  const gone = await tempFolder("gone");
  const before = process.cwd();
  process.chdir(gone);
  await rm(gone, { recursive: true });
  await mark("green");
  process.chdir(before);
  assert.is(await readStateFile(files), "green");
});

colors("the inactive color of blue is green, and the reverse", () => {
  assert.is(getInactiveColor("blue"), "green");
  assert.is(getInactiveColor("green"), "blue");
});
colors.run();
