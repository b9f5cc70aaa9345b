import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createReleased, type Scratch } from "../../bench/testbed/scratch.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { isLost, recordVault, vaultLoss } from "../../lib/release/vault.ts";
import type { Settings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const rules = suite("what a vault has lost");
rules("it has lost what it had: files, or all; what was never there is not missed", () => {
  const has = ["files", "our folder", "nothing"] as const;
  const lost = has.map((had) => has.filter((now) => isLost(had, now)));
  assert.equal(lost, [["our folder", "nothing"], ["nothing"], []]);
});

const finding = async (settings: Settings): Promise<string> => (await vaultLoss(settings))?.finding ?? "none";

/** A vault and a state folder without any stack. */
async function settingsAt(): Promise<Settings> {
  const folder = await tempFolder("vault");
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
    assert.is(await finding(settings), "none", "the first release of all");
    const entry = (result: string) =>
      `${JSON.stringify({ time: "2026-01-01T03:00:00Z", verb: "deploy", result, message: "" })}\n`;
    await writeFile(settings.historyFile, entry("HealthError"));
    assert.is(await finding(settings), "none", "nothing was released yet");
    await writeFile(settings.historyFile, entry("done"));
    assert.match(await finding(settings), "is empty, but earlier releases used it");
    await mkdir(join(settings.vaultPath, "_build"));
    assert.is(await finding(settings), "none");
  },
);

rules("what was noted counts; a vault that is gone altogether cannot be read", async () => {
  const settings = await settingsAt();
  const remember = (acceptEmptyVault = false): Promise<void> =>
    recordVault({
      settings,
      options: { acceptEmptyVault },
      log: { warn: assert.unreachable },
    } as unknown as Parameters<typeof recordVault>[0]);
  const note = join(settings.vaultPath, "note.md");
  await mkdir(join(settings.vaultPath, "_build"));
  await writeFile(note, "");
  await remember();
  assert.is(await finding(settings), "none");
  await rm(note);
  assert.match(await finding(settings), "is empty"); // only what a run had made in an empty mount point
  await remember(); // as when it was unmounted between the last look and the mark
  assert.match(await finding(settings), "is empty");
  await remember(true);
  assert.is(await finding(settings), "none");
  await rm(settings.vaultPath, { recursive: true });
  assert.match(await finding(settings), "cannot be read: ENOENT");
});

rules(
  "a vault that is the very folder of the last mark was emptied; another one may be unmounted",
  async () => {
    const settings = await settingsAt();
    const note = join(settings.stateDir, "vault.json");
    const mounted = async (): Promise<boolean | undefined> => (await vaultLoss(settings))?.mounted;
    await writeFile(note, '{"vault":"files"}');
    assert.is(await mounted(), false, "a note of before has no place");
    const { dev, ino } = await stat(settings.vaultPath, { bigint: true });
    const noted = (place: object) => writeFile(note, JSON.stringify({ vault: "files", place }));
    await noted({ dev: String(dev), ino: String(ino) });
    assert.is(await mounted(), true);
    await noted({ dev: String(dev), ino: String(ino + 1n) });
    assert.is(await mounted(), false, "the folder below a mount point");
    await noted({ dev: String(dev + 1n), ino: String(ino) });
    assert.is(await mounted(), false);
    await writeFile(join(settings.vaultPath, "note.md"), "");
    assert.is(
      await mounted(),
      undefined,
      "another number alone, as after a restart of the host, is no error",
    );
  },
);
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
        assert.match(run.stderr, `The vault ${vault} is empty, but earlier releases used it`);
        assert.match(run.stderr, /Next: Mount the volume .* --accept-empty-vault/);
        assert.equal([await readdir(vault), run.stdout.includes("check Docker")], [[], false]);
      }
      const status = await stack.look();
      assert.is(status.exitCode, 1);
      assert.match(status.stdout, `! The vault ${vault} is empty, but earlier releases used it`);
    });
    await blueServes(stack);
  },
);

/** A docker command that unmounts the vault, as whileUnmounted does, before it does what it is asked for. */
async function unmountingDocker({ folder }: Scratch, vault: string, at: string): Promise<string> {
  const docker = join(folder, "docker-unmounts");
  const script = `#!/bin/sh\ncase "$*" in ${at}) mount -t tmpfs tmpfs ${vault} ;; esac\nexec docker "$@"\n`;
  await writeFile(docker, script, { mode: 0o755 });
  return docker;
}

unmounted("that goes during a run stops it before the switch", async ({ stack, vault }) => {
  // The sources of a release are looked at after the vault was: here they take it away.
  const run = await stack.deploy([], { DOCKER_CMD: await unmountingDocker(stack, vault, '*" up -d "*') });
  const names = await readdir(vault);
  await $({ quiet: true, nothrow: true })`umount ${vault}`; // a run that failed early has not mounted it
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "is empty, but earlier releases used it");
  assert.match(run.stderr, "Undo steps: stop green, restore the previous image of green.");
  assert.equal([names, run.stdout.includes("switch nginx")], [[], false]);
  await blueServes(stack);
});

unmounted(
  "that goes after the switch: the mark counts, and nothing is made in the mount point",
  async ({ stack, vault }) => {
    const at = '"exec "*"kill -HUP 1"*';
    const run = await stack.rollback([], { DOCKER_CMD: await unmountingDocker(stack, vault, at) });
    const names = await readdir(vault);
    await $({ quiet: true, nothrow: true })`umount ${vault}`; // a run that failed early has not mounted it
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stderr,
      `the state file ${stack.stateFile} was not written: The vault ${vault} is empty`,
    );
    assert.equal([names, (await stack.front()).color], [[], "green"]);
    const back = await stack.rollback();
    assert.is(back.exitCode, 0, back.stdall);
    await blueServes(stack);
  },
);

unmounted("that is meant to be empty is accepted when it is said", async ({ stack, vault }) => {
  const note = await readFile(join(stack.stateDir, "vault.json"), "utf8");
  await whileUnmounted(vault, async () => {
    assert.is((await stack.rollback()).exitCode, 1);
    const run = await stack.rollback(["--accept-empty-vault"]);
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, "is empty, but earlier releases used it: accepted");
    const back = await stack.rollback();
    assert.is(back.exitCode, 0, back.stdall);
    assert.is.not(await readFile(join(stack.stateDir, "vault.json"), "utf8"), note, "the folder of now");
  });
  await blueServes(stack);
});

unmounted("is not one that a container has emptied: neither verb is stopped", async ({ stack, vault }) => {
  // Started with the vault that is mounted now, and marked with it.
  for (const color of ["green", "blue"]) {
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.is((await stack.front()).color, color);
  }
  await stack.docker("exec", `${stack.project}-api-blue`, "sh", "-c", "rm -r /vault/_build");
  assert.equal(await readdir(vault), []);
  const emptied = "is empty, but earlier releases used it: it is the same folder as before";
  const told = await stack.deploy(["--dry-run"]);
  assert.is(told.exitCode, 0, told.stdall);
  assert.match(told.stderr, emptied);
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stderr, emptied);
  assert.equal([(await stack.front()).color, await stack.marked()], ["green", "green\n"]);
  const back = await stack.rollback();
  assert.is(back.exitCode, 0, back.stdall);
  await blueServes(stack);
});
unmounted.run();
