import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { checkOAuthData, checkStateFolder, checkVault } from "../../lib/doctor/folders.ts";
import { recordVault } from "../../lib/release/vault.ts";
import { type Context, readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

interface Bed {
  folder: string;
  vault: string;
  context(env?: Record<string, string>): Context;
}

const folders = suite<Bed>("folders of the doctor");
folders.before.each(async (bed) => {
  bed.folder = await tempFolder("doctor-folders");
  bed.vault = join(bed.folder, "vault");
  const env = {
    VAULT_PATH: bed.vault,
    OAUTH_DATA_PATH: join(bed.folder, "oauth"),
    STATE_DIR: join(bed.folder, "state"),
  };
  bed.context = (more = {}) =>
    readOnlyContext(loadSettings({ ...env, ...more }, "/nonexistent", "nothing"), createLog());
  await mkdir(join(bed.folder, "state"), { mode: 0o700 });
  await mkdir(bed.vault);
  await writeFile(join(bed.vault, "note.md"), "");
});
folders.after.each(({ folder }) => rm(folder, { recursive: true }));

folders("a vault with files is fine", async ({ context }) => {
  assert.is((await checkVault(context())).level, "ok");
});

folders("a vault that does not exist is a problem", async ({ context, folder }) => {
  const { level, finding } = await checkVault(context({ VAULT_PATH: join(folder, "none") }));
  assert.is(level, "problem");
  assert.match(finding, "does not exist");
});

folders("an empty vault is a warning before the first release", async ({ context, vault }) => {
  await rm(join(vault, "note.md"));
  const { level, finding } = await checkVault(context());
  assert.is(level, "warning");
  assert.match(finding, "is empty");
});

folders("a vault that is not mounted is a problem; one that was emptied is a warning", async (bed) => {
  const { context, vault } = bed;
  await recordVault(context());
  await rename(vault, `${vault}-away`);
  await mkdir(vault);
  const unmounted = await checkVault(context());
  assert.is(unmounted.level, "problem");
  assert.match(unmounted.next ?? "", "--accept-empty-vault");
  await rm(vault, { recursive: true });
  await rename(`${vault}-away`, vault);
  await rm(join(vault, "note.md"));
  const emptied = await checkVault(context());
  assert.is(emptied.level, "warning");
  assert.match(emptied.finding, "somebody emptied it");
});

folders("a vault and auth's data that are one folder, or one in the other, are a warning", async (bed) => {
  const { context, vault, folder } = bed;
  const inside = join(folder, "oauth/vault");
  await mkdir(inside, { recursive: true });
  for (const env of [
    { OAUTH_DATA_PATH: vault },
    { OAUTH_DATA_PATH: join(vault, "oauth") },
    { VAULT_PATH: inside },
  ]) {
    const { level, finding } = await checkVault(context(env));
    assert.is(level, "warning", JSON.stringify(env));
    assert.match(finding, "overlap");
  }
});

folders("a state folder that is not there is fine; one that others can write to is an error", async (bed) => {
  const { context, folder } = bed;
  assert.is((await checkStateFolder(context())).level, "ok");
  const missing = await checkStateFolder(context({ STATE_DIR: join(folder, "a/b") }));
  assert.match(missing.finding, "which the first run creates");
  await chmod(join(folder, "state"), 0o777);
  const refused = checkStateFolder(context());
  await refused.then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, "its mode is 777"),
  );
});

folders("a folder for auth's data that cannot be created is an error", async ({ context, folder, vault }) => {
  assert.match((await checkOAuthData(context())).finding, "which the first release creates");
  await mkdir(join(folder, "oauth"));
  assert.is((await checkOAuthData(context())).finding, join(folder, "oauth"));
  const file = checkOAuthData(context({ OAUTH_DATA_PATH: join(vault, "note.md") }));
  await file.then(
    () => assert.unreachable(),
    (error) =>
      assert.match(`${error.message}: ${error.details}`, /Cannot create the folder .*: it is not a folder/),
  );
});
folders.run();
