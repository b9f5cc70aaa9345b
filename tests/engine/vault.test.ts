import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { isLost, recordVault, vaultLoss } from "../../lib/release/vault.ts";
import type { Settings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const rules = suite("vault loss");
rules("a vault is lost if it lacks what it had before: files, or everything", () => {
  const CONTENTS = ["files", "our folder", "nothing"] as const;
  const lost = CONTENTS.map((had) => CONTENTS.filter((now) => isLost(had, now)));
  assert.equal(lost, [["our folder", "nothing"], ["nothing"], []]);
});

const finding = async (settings: Settings): Promise<string> => (await vaultLoss(settings))?.finding ?? "none";

/** Creates a vault and a state folder without a stack. Returns their settings. */
async function createSettings(): Promise<Settings & { vaultPath: string }> {
  const folder = await tempFolder("vault");
  const [vaultPath, stateDir] = [join(folder, "vault"), join(folder, "state")];
  for (const path of [vaultPath, stateDir]) await mkdir(path);
  const historyFile = join(stateDir, "history.jsonl");
  return {
    vaultPath,
    stateDir,
    historyFile,
    activeColorFile: join(vaultPath, "_build/.active-color"),
  } as Settings & { vaultPath: string };
}

rules(
  "without a vault record, an empty vault counts as lost if the history has a successful release",
  async () => {
    const settings = await createSettings();
    assert.is(await finding(settings), "none", "the very first release");
    const entry = (result: string) =>
      `${JSON.stringify({ time: "2026-01-01T03:00:00Z", verb: "deploy", result, message: "" })}\n`;
    await writeFile(settings.historyFile, entry("HealthError"));
    assert.is(await finding(settings), "none", "nothing has been released yet");
    await writeFile(settings.historyFile, entry("done"));
    assert.match(await finding(settings), "is empty, but earlier releases used it");
    await mkdir(join(settings.vaultPath, "_build"));
    assert.is(await finding(settings), "none");
  },
);

rules("the recorded content decides; a missing vault is reported as unreadable", async () => {
  const settings = await createSettings();
  const record = (acceptEmptyVault = false): Promise<void> =>
    recordVault({
      settings,
      options: { acceptEmptyVault },
      log: { warn: assert.unreachable },
    } as unknown as Parameters<typeof recordVault>[0]);
  const ownersFile = join(settings.vaultPath, "note.md");
  await mkdir(join(settings.vaultPath, "_build"));
  await writeFile(ownersFile, "");
  await record();
  assert.is(await finding(settings), "none");
  await rm(ownersFile);
  assert.match(await finding(settings), "is empty"); // only what a run created in an empty mount point
  await record(); // as if it was unmounted between the last check and the mark
  assert.match(await finding(settings), "is empty");
  await record(true);
  assert.is(await finding(settings), "none");
  await rm(settings.vaultPath, { recursive: true });
  assert.match(await finding(settings), "cannot be read: ENOENT");
});

rules(
  "an empty vault that is the same folder as at the last mark was emptied; another folder may be unmounted",
  async () => {
    const settings = await createSettings();
    const recordFile = join(settings.stateDir, "vault.json");
    const mounted = async (): Promise<boolean | undefined> => (await vaultLoss(settings))?.mounted;
    await writeFile(recordFile, '{"vault":"files"}');
    assert.is(await mounted(), false, "records of older versions do not identify the folder");
    const { dev, ino } = await stat(settings.vaultPath, { bigint: true });
    const recordPlace = (place: object) => writeFile(recordFile, JSON.stringify({ vault: "files", place }));
    await recordPlace({ dev: String(dev), ino: String(ino) });
    assert.is(await mounted(), true);
    await recordPlace({ dev: String(dev), ino: String(ino + 1n) });
    assert.is(await mounted(), false, "as with the folder under a mount point");
    await recordPlace({ dev: String(dev + 1n), ino: String(ino) });
    assert.is(await mounted(), false);
    await writeFile(join(settings.vaultPath, "note.md"), "");
    assert.is(
      await mounted(),
      undefined,
      "a different device number alone, as after a restart of the host, is no error",
    );
  },
);
rules.run();

/** At the start and at the end of each test one color serves, and the other is stopped. */
const unmounted = suite<{ stack: Scratch; vault: string }>("an unmounted vault");
unmounted.before(async (context) => {
  context.stack = await createReleasedScratch("vault", {});
  context.vault = dirname(dirname(context.stack.stateFile));
});
unmounted.after(({ stack }) => stack.remove());

/** Runs `act` while the vault is an empty folder, as if its volume was unmounted. */
async function whileUnmounted(vault: string, act: () => Promise<void>): Promise<void> {
  await $({ quiet: true })`mount -t tmpfs tmpfs ${vault}`;
  try {
    await act();
  } finally {
    await $({ quiet: true })`umount ${vault}`;
  }
}

async function assertServes(stack: Scratch, serving: string): Promise<void> {
  const { status, color } = await stack.get();
  assert.equal(
    [status, color, await stack.running(), await stack.readStateFile()],
    [200, serving, [serving], `${serving}\n`],
  );
}

unmounted(
  "an unmounted vault stops a deploy and a rollback before anything is written, and status reports it",
  async ({ stack, vault }) => {
    await whileUnmounted(vault, async () => {
      for (const verb of ["deploy", "rollback"] as const) {
        const run = await stack[verb]();
        assert.is(run.exitCode, 1, run.stdall);
        assert.match(run.stderr, `The vault ${vault} is empty, but earlier releases used it`);
        assert.match(run.stderr, /Next: Mount the volume .* --accept-empty-vault/);
        assert.equal([await readdir(vault), run.stdout.includes("check Docker")], [[], false]);
      }
      const status = await stack.status();
      assert.is(status.exitCode, 1);
      assert.match(status.stdout, `! The vault ${vault} is empty, but earlier releases used it`);
    });
    await assertServes(stack, "blue");
  },
);

/** Creates a docker command that hides the vault, as whileUnmounted does, before a command that matches `at`. */
async function createUnmountingDocker({ folder }: Scratch, vault: string, at: string): Promise<string> {
  const docker = join(folder, "docker-unmounts");
  const script = `#!/bin/sh\ncase "$*" in ${at}) mount -t tmpfs tmpfs ${vault} ;; esac\nexec docker "$@"\n`;
  await writeFile(docker, script, { mode: 0o755 });
  return docker;
}

unmounted("a vault that is unmounted during a run stops it before the switch", async ({ stack, vault }) => {
  // Unmounts the vault when the new container is started, after the first check of the vault.
  const run = await stack.deploy([], {
    DOCKER_CMD: await createUnmountingDocker(stack, vault, '*" up -d "*'),
  });
  const names = await readdir(vault);
  await $({ quiet: true, nothrow: true })`umount ${vault}`; // nothing is mounted if the run failed early
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "is empty, but earlier releases used it");
  assert.match(
    run.stderr,
    "Undo steps: stop green, restore the previous image of green, remove the failed image.",
  );
  assert.equal([names, run.stdout.includes("switch nginx")], [[], false]);
  await assertServes(stack, "blue");
});

unmounted(
  "if the vault is unmounted after the switch, the color is marked and nothing is created in the mount point",
  async ({ stack, vault }) => {
    const at = '"exec "*"kill -HUP 1"*';
    const run = await stack.rollback([], { DOCKER_CMD: await createUnmountingDocker(stack, vault, at) });
    const names = await readdir(vault);
    await $({ quiet: true, nothrow: true })`umount ${vault}`; // nothing is mounted if the run failed early
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stderr,
      `the state file ${stack.stateFile} was not written: The vault ${vault} is empty`,
    );
    assert.equal([names, (await stack.get()).color], [[], "green"]);
  },
);

unmounted(
  "a vault that a container has emptied stops neither a deploy nor a rollback",
  async ({ stack, vault }) => {
    const { color } = await stack.get(); // it was started with the vault that is mounted now
    await stack.docker("exec", `${stack.project}-api-${color}`, "sh", "-c", "rm -r /vault/_build");
    assert.equal(await readdir(vault), []);
    const emptied = "is empty, but earlier releases used it: it is the same folder as before";
    const dryRun = await stack.deploy(["--dry-run"]);
    assert.is(dryRun.exitCode, 0, dryRun.stdall);
    assert.match(dryRun.stderr, emptied);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, emptied);
    await assertServes(stack, color === "blue" ? "green" : "blue");
  },
);
unmounted("an empty vault is accepted with --accept-empty-vault", async ({ stack, vault }) => {
  const before = await readFile(join(stack.stateDir, "vault.json"), "utf8");
  await whileUnmounted(vault, async () => {
    const run = await stack.rollback(["--accept-empty-vault"]);
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, "is empty, but earlier releases used it: accepted");
    const back = await stack.rollback();
    assert.is(back.exitCode, 0, back.stdall);
    assert.is.not(
      await readFile(join(stack.stateDir, "vault.json"), "utf8"),
      before,
      "it must record the current folder",
    );
  });
  assert.is((await stack.get()).status, 200);
});

unmounted.run();
