import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { shortRevision, sourceRevision } from "../../lib/release/revision.ts";
import { ROOT } from "../../lib/settings.ts";

const IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@localhost"];

/** Creates a checkout with one commit, in a folder that every user may enter. */
async function checkout(): Promise<{ folder: string; commit: string }> {
  const folder = await tempFolder("revision");
  await chmod(folder, 0o755);
  const git = $({ quiet: true, cwd: folder });
  await writeFile(join(folder, "Dockerfile"), "FROM scratch\n");
  await git`git init -q && git add . && git ${IDENTITY} commit -qm one`;
  return { folder, commit: (await git`git rev-parse HEAD`).stdout.trim() };
}

test("a short revision keeps that it was dirty", () => {
  const commit = "0123456789abcdef0123456789abcdef01234567";
  assert.is(shortRevision(commit), "0123456789");
  assert.is(shortRevision(`${commit}-dirty`), "0123456789-dirty");
});

test("the revision is the commit, with -dirty if the folder was changed; without a checkout there is none", async () => {
  const empty = await tempFolder("revision");
  assert.is(await sourceRevision(empty), undefined);
  const { folder, commit } = await checkout();
  assert.is(await sourceRevision(folder), commit);
  await writeFile(join(folder, "Dockerfile"), "FROM scratch\nLABEL a=b\n");
  assert.is(await sourceRevision(folder), `${commit}-dirty`);
  await rm(folder, { recursive: true });
  assert.is(await sourceRevision(folder), undefined);
});

test("folders inside a checkout, packed refs, linked worktrees, ignored files and ignored file modes are supported", async () => {
  const { folder, commit } = await checkout();
  const git = $({ quiet: true, cwd: folder });
  await mkdir(join(folder, "api"));
  await writeFile(join(folder, "api/a"), "a\n");
  await git`git add . && git ${IDENTITY} commit -qm two && git pack-refs --all`;
  const second = (await git`git rev-parse HEAD`).stdout.trim();
  assert.is.not(second, commit);
  assert.is(await sourceRevision(join(folder, "api")), second);
  await writeFile(join(folder, "untracked"), "b\n");
  assert.is(await sourceRevision(join(folder, "api")), second, "changes outside the folder do not count");
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

/** Configures everything that could make git run a command in this checkout; each command leaves a file in `traces`. Returns the commit. */
async function plantTraps(folder: string, traces: string): Promise<string> {
  const git = $({ quiet: true, cwd: folder });
  const touch = (name: string) => `touch ${traces}/${name}; cat`;
  await git`git ${IDENTITY} commit -q --allow-empty -m two`;
  await writeFile(join(folder, "Dockerfile"), "FROM scratch \n"); // changed, so that git needs the filter to compare it
  await writeFile(join(folder, ".gitattributes"), "* filter=evil diff=evil\n");
  await mkdir(join(folder, "nested"));
  const nested = $({ quiet: true, cwd: join(folder, "nested") });
  await nested`git init -q && git ${IDENTITY} commit -q --allow-empty -m one`;
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

/** Runs `sourceRevision` in its own process, as another user if `uid` is given. */
async function revisionAs(folder: string, uid: number | undefined, home: string): Promise<string> {
  const script = `import { shortRevision, sourceRevision } from ${JSON.stringify(join(ROOT, "lib/release/revision.ts"))}; console.log(await sourceRevision(process.argv[1]));`;
  const child = spawn(
    process.execPath,
    ["--import", join(ROOT, "node_modules/tsx/dist/loader.mjs"), "--input-type=module", "-e", script, folder],
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

test("nothing that the checkout configures is run, such as filters, hooks or includes, as this user or as another", async () => {
  const { folder } = await checkout();
  const [traces, home] = [`${folder}-traces`, `${folder}-home`];
  for (const path of [traces, home]) {
    await mkdir(path);
    await chmod(path, 0o777);
  }
  const head = await plantTraps(folder, traces);
  const otherUser = 54_321;
  const isRoot = process.getuid?.() === 0;
  // If only root can read this checkout, other users cannot run its code.
  const othersMayRead =
    isRoot && spawnSync("cat", [join(ROOT, "lib/release/revision.ts")], { uid: otherUser }).status === 0;
  for (const owner of isRoot ? [0, otherUser] : [undefined]) {
    if (owner !== undefined) await $({ quiet: true })`chown -R ${owner}:${owner} ${folder}`;
    for (const uid of othersMayRead ? [undefined, otherUser] : [undefined]) {
      assert.is(
        await revisionAs(folder, uid, home),
        `${head}-dirty`,
        `owner ${owner}, run by ${uid ?? "this user"}`,
      );
      assert.equal(await readdir(traces), [], `owner ${owner}, run by ${uid ?? "this user"}`);
    }
  }
  for (const each of [folder, traces, home]) await rm(each, { recursive: true });
});
test.run();
