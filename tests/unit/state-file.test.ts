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

interface Marks {
  places: StateFiles;
  warnings: string[];
  mark(color: "blue" | "green"): Promise<void>;
  begin(otherwise?: "blue" | "green"): Promise<void>;
}

const colors = suite<Marks>("color");
colors.before.each(async (context) => {
  const folder = await tempFolder("color");
  for (const name of ["vault", "state"]) await mkdir(join(folder, name));
  const places: StateFiles = {
    recordFile: join(folder, "state/active-color"),
    activeColorFile: join(folder, "vault/_build/.active-color"),
    vaultPath: join(folder, "vault"),
    oauthDataPath: join(folder, "oauth"),
  };
  const warnings: string[] = [];
  const log = { ...createLog(), warn: (message: string) => warnings.push(message) };
  const stack = { settings: places as Settings, log };
  Object.assign(context, {
    places,
    warnings,
    mark: (color: "blue" | "green") => writeActiveColor(stack, color),
    begin: (otherwise?: "blue" | "green") => initializeColorRecord(stack, otherwise),
  });
});

async function refused(act: Promise<unknown>): Promise<string> {
  try {
    await act;
  } catch (error) {
    assert.instance(error, StateFileError);
    return (error as Error).message;
  }
  return assert.unreachable("nothing was thrown") as never;
}

colors("nothing marked means blue", async ({ places }) => {
  assert.is(await getActiveColor(places), "blue");
});

colors("marking makes the folder; what is marked is read again, and published", async ({ places, mark }) => {
  for (const color of ["green", "blue"] as const) {
    await mark(color);
    for (const file of [places.recordFile, places.activeColorFile])
      assert.is(await readFile(file, "utf8"), `${color}\n`);
    assert.is(await getActiveColor(places), color);
    assert.is(await readStateFile(places), color);
  }
  assert.equal(await readdir(join(places.vaultPath, "_build")), [".active-color"]);
});

colors(
  "white space around the color does not matter, anything else is an error",
  async ({ places, mark }) => {
    await mark("blue");
    for (const file of [places.recordFile, places.activeColorFile]) await writeFile(file, "  green \r\n");
    assert.equal([await getActiveColor(places), await readStateFile(places)], ["green", "green"]);
    for (const content of ["", "\n", "Blue", "bluegreen", "blue green", "blue\u0000", "{}"]) {
      for (const file of [places.recordFile, places.activeColorFile]) await writeFile(file, content);
      for (const message of [await refused(getActiveColor(places)), await refused(readStateFile(places))])
        assert.match(message, JSON.stringify(content));
    }
  },
);

colors("where there is a record the state file decides nothing", async ({ places, mark }) => {
  await mark("green");
  for (const content of ["blue\n", "purple"]) {
    await writeFile(places.activeColorFile, content);
    assert.is(await getActiveColor(places), "green");
  }
  await rm(places.activeColorFile);
  assert.is(await getActiveColor(places), "green");
});

colors("where there is none yet, it begins with what the state file says", async (context) => {
  const { places, begin, warnings } = context;
  await mkdir(join(places.vaultPath, "_build"));
  await writeFile(places.activeColorFile, "purple\n");
  await begin();
  assert.match(warnings.join(), 'says "purple');
  assert.is(await getActiveColor(places), "blue");
  await writeFile(places.activeColorFile, "green\n");
  await begin();
  await writeFile(places.activeColorFile, "blue\n");
  await begin();
  assert.is(await getActiveColor(places), "green");
});

colors("the mark of another state file counts only where its own says nothing", async ({ places, begin }) => {
  await begin("green");
  assert.is(await getActiveColor(places), "green");
  await begin("blue");
  assert.is(await getActiveColor(places), "green", "the record was there");
  await rm(places.recordFile);
  await mkdir(join(places.vaultPath, "_build"));
  await writeFile(places.activeColorFile, "blue\n");
  await begin("green");
  assert.is(await getActiveColor(places), "blue");
});

colors("a record that cannot be written is an error; a state file, a warning", async (context) => {
  const { places, mark, warnings } = context;
  await mkdir(join(places.activeColorFile, "not empty"), { recursive: true });
  await mark("green");
  assert.match(warnings.join(), `the state file ${places.activeColorFile} was not written: `);
  assert.is(await getActiveColor(places), "green");
  await mkdir(`${places.recordFile}.d`);
  places.recordFile = "/proc/none/active-color";
  assert.match(await refused(mark("blue")), "Cannot write blue to the color record");
});

/** What a container could put in the place of the state file, or of its folder. */
const ATTACKS: Record<string, string> = {
  "a link to a file": "ln -s ../../outside/file _build/.active-color",
  "a link to nowhere": "ln -s ../../outside/new _build/.active-color",
  "a FIFO": "mkfifo _build/.active-color",
  "an empty folder": "mkdir _build/.active-color",
  "a huge file": "truncate -s 1T _build/.active-color",
  "its folder a link": "rmdir _build && ln -s ../outside _build",
};
for (const [what, attack] of Object.entries(ATTACKS)) {
  colors(`${what}: nothing outside is read or written, nothing waits, the mark counts`, async (context) => {
    const { places, mark, warnings } = context;
    const outside = join(places.vaultPath, "../outside");
    await mkdir(outside);
    await writeFile(join(outside, "file"), "blue\n");
    await writeFile(join(outside, ".active-color"), "blue\n");
    const shell = $({ quiet: true, cwd: places.vaultPath });
    await shell`mkdir _build && sh -c ${attack}`;
    const read = await readStateFile(places).catch((error) => String(error));
    assert.match(String(read), /Cannot read the state file/);
    const cwd = process.cwd();
    await mark("green");
    assert.is(process.cwd(), cwd);
    assert.is(await getActiveColor(places), "green");
    const isLink = what === "its folder a link";
    assert.is(warnings.length, isLink ? 1 : 0, warnings.join());
    if (!isLink) assert.is(await readStateFile(places), "green");
    assert.equal((await readdir(outside)).toSorted(), [".active-color", "file"]);
    for (const name of ["file", ".active-color"])
      assert.is(await readFile(join(outside, name), "utf8"), "blue\n");
  });
}

colors("what a killed run left beside the state file is removed by the next", async ({ places, mark }) => {
  await mark("green");
  const folder = join(places.vaultPath, "_build");
  await appendFile(join(folder, "..active-color.0123456789abcdef.tmp"), "half");
  await symlink("/etc/passwd", join(folder, "..active-color.0123456789abcdee.tmp"));
  await writeFile(join(folder, "..active-color.mine.tmp"), "");
  await mark("blue");
  assert.equal(
    (await readdir(folder)).toSorted(),
    ["..active-color.0123456789abcdee.tmp", "..active-color.mine.tmp", ".active-color"].toSorted(),
  );
});

colors("a working directory that is gone is no reason to fail", async ({ places, mark }) => {
  const gone = await tempFolder("gone");
  const before = process.cwd();
  process.chdir(gone);
  await rm(gone, { recursive: true });
  await mark("green");
  process.chdir(before);
  assert.is(await readStateFile(places), "green");
});

colors("the inactive color is the other one", () => {
  assert.is(getInactiveColor("blue"), "green");
  assert.is(getInactiveColor("green"), "blue");
});
colors.run();
