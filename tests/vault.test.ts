import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import type { Settings } from "../lib/settings.ts";
import { emptyVault, isLost, rememberVault } from "../lib/vault.ts";
import { createReleased, type Scratch } from "./scratch.ts";
import { suite } from "./suite.ts";

const rules = suite("what a vault has lost");
rules("it has lost what it had: files, or all; what was never there is not missed", () => {
  const has = ["files", "our folder", "nothing"] as const;
  const lost = has.map((had) => has.filter((now) => isLost(had, now)));
  assert.equal(lost, [["our folder", "nothing"], ["nothing"], []]);
});

/** A vault and a state folder without any stack. */
async function settingsAt(): Promise<Settings> {
  const folder = await mkdtemp(join(tmpdir(), "loop-test-vault-"));
  const [vaultPath, stateDir] = [join(folder, "vault"), join(folder, "state")];
  for (const path of [vaultPath, stateDir]) await mkdir(path);
  const historyFile = join(stateDir, "history.jsonl");
  return {
    vaultPath,
    stateDir,
    historyFile,
    activeColorFile: join(vaultPath, "_build/.active-color"),
  } as Settings;
}

rules(
  "with no note yet, a history of good releases and no folder of ours is a vault that is lost",
  async () => {
    const settings = await settingsAt();
    assert.is(await emptyVault(settings), undefined, "the first release of all");
    const entry = (result: string) =>
      `${JSON.stringify({ time: "2026-01-01T03:00:00Z", verb: "deploy", result, message: "" })}\n`;
    await writeFile(settings.historyFile, entry("HealthError"));
    assert.is(await emptyVault(settings), undefined, "nothing was released yet");
    await writeFile(settings.historyFile, entry("done"));
    assert.match((await emptyVault(settings)) ?? "", "is empty, but was used for releases before");
    await mkdir(join(settings.vaultPath, "_build"));
    assert.is(await emptyVault(settings), undefined);
  },
);

rules("what was noted counts; a vault that is gone altogether cannot be read", async () => {
  const settings = await settingsAt();
  const remember = (acceptEmptyVault = false): Promise<void> =>
    rememberVault({
      settings,
      options: { acceptEmptyVault },
      log: { warn: assert.unreachable },
    } as unknown as Parameters<typeof rememberVault>[0]);
  const note = join(settings.vaultPath, "note.md");
  await mkdir(join(settings.vaultPath, "_build"));
  await writeFile(note, "");
  await remember();
  assert.is(await emptyVault(settings), undefined);
  await rm(note);
  assert.match((await emptyVault(settings)) ?? "", "is empty"); // only what a run had made in an empty mount point
  await remember(); // as when it was unmounted between the last look and the mark
  assert.match((await emptyVault(settings)) ?? "", "is empty");
  await remember(true);
  assert.is(await emptyVault(settings), undefined);
  await rm(settings.vaultPath, { recursive: true });
  assert.match((await emptyVault(settings)) ?? "", "cannot be read: ENOENT");
});
rules.run();

/** Blue serves at the start of each of these, and at the end; the vault has a file of its owner. */
const unmounted = suite<{ stack: Scratch; vault: string }>("an unmounted vault");
unmounted.before(async (context) => {
  context.stack = await createReleased("vault", {});
  context.vault = dirname(dirname(context.stack.stateFile));
});
unmounted.after(({ stack }) => stack.remove());

/** With the vault as an unmounted volume leaves it: an empty folder. */
async function whileUnmounted(vault: string, act: () => Promise<void>): Promise<void> {
  await $({ quiet: true })`mount -t tmpfs tmpfs ${vault}`;
  try {
    await act();
  } finally {
    await $({ quiet: true })`umount ${vault}`;
  }
}

async function blueServes(stack: Scratch): Promise<void> {
  const { status, color } = await stack.front();
  assert.equal(
    [status, color, await stack.running(), await stack.marked()],
    [200, "blue", ["blue"], "blue\n"],
  );
}

unmounted(
  "stops a deploy and a rollback before anything is written; status tells",
  async ({ stack, vault }) => {
    await whileUnmounted(vault, async () => {
      for (const verb of ["deploy", "rollback"] as const) {
        const run = await stack[verb]();
        assert.is(run.exitCode, 1, run.stdall);
        assert.match(run.stderr, `The vault ${vault} is empty, but was used for releases before`);
        assert.match(run.stderr, /Next: Mount the volume .* --accept-empty-vault/);
        assert.equal([await readdir(vault), run.stdout.includes("look for Docker")], [[], false]);
      }
      const status = await stack.look();
      assert.is(status.exitCode, 1);
      assert.match(status.stdout, `! The vault ${vault} is empty, but was used for releases before`);
    });
    await blueServes(stack);
  },
);

unmounted("that goes during a run stops it before the switch", async ({ stack, vault }) => {
  const aside = `${vault}-aside`;
  await mkdir(aside);
  const build = join(aside, "_build");
  // The sources of a release are looked at after the vault was: here they take it away.
  const docker = join(stack.folder, "docker-unmounts");
  await writeFile(
    docker,
    `#!/bin/sh\ncase "$*" in *" up -d "*) mv ${vault}/_build ${build} ;; esac\nexec docker "$@"\n`,
    { mode: 0o755 },
  );
  const run = await stack.deploy([], { DOCKER_CMD: docker });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "is empty, but was used for releases before");
  assert.match(run.stderr, "Taken back: stop green, keep the build of green before.");
  assert.equal([await readdir(vault), run.stdout.includes("switch nginx")], [[], false]);
  await rename(build, join(vault, "_build"));
  await blueServes(stack);
});

unmounted(
  "that goes after the switch: the mark counts, and nothing is made in the mount point",
  async (context) => {
    const { stack, vault } = context;
    const build = `${vault}-build`;
    const docker = join(stack.folder, "docker-unmounts-late");
    await writeFile(
      docker,
      `#!/bin/sh\ncase "$*" in "exec "*"kill -HUP 1"*) mv ${vault}/_build ${build} ;; esac\nexec docker "$@"\n`,
      { mode: 0o755 },
    );
    const run = await stack.rollback([], { DOCKER_CMD: docker });
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stderr,
      `the state file ${stack.stateFile} was not written: The vault ${vault} is empty`,
    );
    assert.equal([await readdir(vault), (await stack.front()).color], [[], "green"]);
    await rename(build, join(vault, "_build"));
    const back = await stack.rollback();
    assert.is(back.exitCode, 0, back.stdall);
    await blueServes(stack);
  },
);

unmounted("that is meant to be empty is accepted when it is said", async ({ stack, vault }) => {
  await rm(join(vault, "_build"), { recursive: true });
  const refused = await stack.rollback();
  assert.is(refused.exitCode, 1, refused.stdall);
  const run = await stack.rollback(["--accept-empty-vault"]);
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stderr, "is empty, but was used for releases before: accepted");
  const back = await stack.rollback();
  assert.is(back.exitCode, 0, back.stdall);
  await blueServes(stack);
});
unmounted.run();
