import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { sourceRevision } from "../../lib/release/revision.ts";
import { ROOT } from "../../lib/settings.ts";

const AS_SOMEBODY = ["-c", "user.name=t", "-c", "user.email=t@localhost"];

/** A checkout with one commit, in a folder that everybody may enter. */
async function checkout(): Promise<{ folder: string; commit: string }> {
  const folder = await tempFolder("revision");
  await chmod(folder, 0o755);
  const git = $({ quiet: true, cwd: folder });
  await writeFile(join(folder, "Dockerfile"), "FROM scratch\n");
  await git`git init -q && git add . && git ${AS_SOMEBODY} commit -qm one`;
  return { folder, commit: (await git`git rev-parse HEAD`).stdout.trim() };
}

test("the commit of a checkout, dirty when the folder is, and nothing elsewhere", async () => {
  const empty = await tempFolder("revision");
  assert.is(await sourceRevision(empty), undefined);
  const { folder, commit } = await checkout();
  assert.is(await sourceRevision(folder), commit);
  await writeFile(join(folder, "Dockerfile"), "FROM scratch\nLABEL a=b\n");
  assert.is(await sourceRevision(folder), `${commit}-dirty`);
  await rm(folder, { recursive: true });
  assert.is(await sourceRevision(folder), undefined);
});

test("a folder inside a checkout, a packed branch, a linked worktree, ignored files and lost file modes", async () => {
  const { folder, commit } = await checkout();
  const git = $({ quiet: true, cwd: folder });
  await mkdir(join(folder, "api"));
  await writeFile(join(folder, "api/a"), "a\n");
  await git`git add . && git ${AS_SOMEBODY} commit -qm two && git pack-refs --all`;
  const second = (await git`git rev-parse HEAD`).stdout.trim();
  assert.is.not(second, commit);
  assert.is(await sourceRevision(join(folder, "api")), second);
  await writeFile(join(folder, "untracked"), "b\n");
  assert.is(await sourceRevision(join(folder, "api")), second, "what is beside the folder does not count");
  assert.is(await sourceRevision(folder), `${second}-dirty`);
  await writeFile(join(folder, ".git/info/exclude"), "untracked\n");
  assert.is(await sourceRevision(folder), second);
  await chmod(join(folder, "api/a"), 0o755);
  assert.is(await sourceRevision(folder), `${second}-dirty`);
  await git`git config core.fileMode false`;
  assert.is(await sourceRevision(folder), second);
  const linked = `${folder}-linked`;
  await git`git worktree add -q ${linked} ${commit}`;
  assert.is(await sourceRevision(linked), commit);
  await writeFile(join(linked, "Dockerfile"), "FROM other\n");
  assert.is(await sourceRevision(linked), `${commit}-dirty`);
  for (const each of [folder, linked]) await rm(each, { recursive: true });
});

/** Whatever git could be made to run in this checkout leaves a file that names it. Gives the commit. */
async function trap(folder: string, marks: string): Promise<string> {
  const git = $({ quiet: true, cwd: folder });
  const touch = (name: string) => `touch ${marks}/${name}; cat`;
  await git`git ${AS_SOMEBODY} commit -q --allow-empty -m two`;
  await writeFile(join(folder, "Dockerfile"), "FROM scratch \n"); // changed, so that a filter is needed to tell
  await writeFile(join(folder, ".gitattributes"), "* filter=evil diff=evil\n");
  await mkdir(join(folder, "nested"));
  const nested = $({ quiet: true, cwd: join(folder, "nested") });
  await nested`git init -q && git ${AS_SOMEBODY} commit -q --allow-empty -m one`;
  await git`git -c advice.addEmbeddedRepo=false add nested`;
  const head = (await git`git rev-parse HEAD`).stdout.trim();
  for (const config of [join(folder, ".git/config"), join(folder, "nested/.git/config")]) {
    await writeFile(
      config,
      `[core]
	repositoryformatversion = 0
	fsmonitor = "${touch("fsmonitor")}"
	hooksPath = ${folder}/.git/hooks
	sshCommand = "${touch("ssh")}"
	pager = "${touch("pager")}"
	editor = "${touch("editor")}"
	alternateRefsCommand = "${touch("alternates")}"
[filter "evil"]
	clean = "${touch("clean")}"
	smudge = "${touch("smudge")}"
	process = "${touch("process")}"
	required = true
[diff]
	external = "${touch("external")}"
[diff "evil"]
	textconv = "${touch("textconv")}"
[gpg]
	program = "${touch("gpg")}"
[log]
	showSignature = true
[alias]
	status = "!${touch("alias")}"
[include]
	path = included
`,
    );
  }
  await writeFile(join(folder, ".git/included"), `[core]\n\tfsmonitor = "${touch("included")}"\n`);
  for (const hook of ["post-index-change", "reference-transaction", "query-watchman", "fsmonitor-watchman"])
    await writeFile(join(folder, ".git/hooks", hook), `#!/bin/sh\n${touch(hook)}\n`, { mode: 0o755 });
  return head;
}

/** The same question from a process of its own, of another user where one is given. */
async function askAs(folder: string, uid: number | undefined, home: string): Promise<string> {
  const ask = `import { sourceRevision } from ${JSON.stringify(join(ROOT, "lib/release/revision.ts"))}; console.log(await sourceRevision(process.argv[1]));`;
  const child = spawn(
    process.execPath,
    ["--import", join(ROOT, "node_modules/tsx/dist/loader.mjs"), "--input-type=module", "-e", ask, folder],
    {
      stdio: ["ignore", "pipe", "inherit"],
      env: { PATH: process.env.PATH, HOME: home, TMPDIR: home },
      cwd: ROOT,
      ...(uid === undefined ? {} : { uid, gid: uid }),
    },
  );
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  await once(child, "close");
  return output.trim();
}

test("runs nothing that the checkout names: settings, filters, hooks, includes; as this user and as another", async () => {
  const { folder } = await checkout();
  const [marks, home] = [`${folder}-marks`, `${folder}-home`];
  for (const open of [marks, home]) {
    await mkdir(open);
    await chmod(open, 0o777);
  }
  const head = await trap(folder, marks);
  const stranger = 54_321;
  const isRoot = process.getuid?.() === 0;
  // Where only root can read this checkout, nobody else can ask.
  const mayRead =
    isRoot && spawnSync("cat", [join(ROOT, "lib/release/revision.ts")], { uid: stranger }).status === 0;
  for (const owner of isRoot ? [0, stranger] : [undefined]) {
    if (owner !== undefined) await $({ quiet: true })`chown -R ${owner}:${owner} ${folder}`;
    for (const uid of mayRead ? [undefined, stranger] : [undefined]) {
      assert.is(
        await askAs(folder, uid, home),
        `${head}-dirty`,
        `owner ${owner}, asked by ${uid ?? "this user"}`,
      );
      assert.equal(await readdir(marks), [], `owner ${owner}, asked by ${uid ?? "this user"}`);
    }
  }
  for (const each of [folder, marks, home]) await rm(each, { recursive: true });
});
test.run();
