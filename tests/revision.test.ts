import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { sourceRevision } from "../lib/revision.ts";

test("the commit of a checkout, dirty when the folder is, and nothing elsewhere", async () => {
  const folder = await mkdtemp(join(tmpdir(), "loop-test-revision-"));
  assert.is(await sourceRevision(folder), undefined);
  const git = $({ quiet: true, cwd: folder });
  await writeFile(join(folder, "Dockerfile"), "FROM scratch\n");
  await git`git init -q && git add . && git -c user.name=t -c user.email=t@localhost commit -qm one`;
  const { stdout } = await git`git rev-parse HEAD`;
  assert.is(await sourceRevision(folder), stdout.trim());
  await writeFile(join(folder, "Dockerfile"), "FROM scratch\nLABEL a=b\n");
  assert.is(await sourceRevision(folder), `${stdout.trim()}-dirty`);
  await rm(folder, { recursive: true });
  assert.is(await sourceRevision(folder), undefined);
});
test.run();
