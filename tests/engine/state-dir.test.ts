import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createReleased, createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { StateFileError, UsageError } from "../../lib/errors.ts";
import { checkStateDir, openStateDir } from "../../lib/run/state-dir.ts";
import { loadSettings, ROOT, type Settings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const NOBODY_ELSES = 54321;

const settingsFor = (STATE_DIR: string): Settings =>
  loadSettings({ STATE_DIR }, "/nonexistent/.env.blue-green");

const folders = suite<{ folder: string; settings: Settings }>("state folder");
folders.before.each(async (context) => {
  context.folder = join(await tempFolder("statedir"), "parent/state");
  context.settings = settingsFor(context.folder);
});

folders(
  "is made for its owner only, also with its parent; to look makes nothing",
  async ({ folder, settings }) => {
    checkStateDir(settings);
    assert.not(await stat(folder).catch(() => undefined));
    openStateDir(settings);
    openStateDir(settings);
    for (const path of [folder, join(folder, "..")]) assert.is((await stat(path)).mode & 0o777, 0o700);
  },
);

folders("one that others could have written to is refused, with what to do", async ({ folder, settings }) => {
  openStateDir(settings);
  const refused = (why: RegExp) => {
    for (const act of [checkStateDir, openStateDir])
      assert.throws(
        () => act(settings),
        (error: unknown) => error instanceof UsageError && why.test(`${error.message} ${error.next}`),
      );
  };
  for (const mode of [0o770, 0o702]) {
    await chmod(folder, mode);
    refused(/its mode is 7[70][02], so others can write to it.*chmod 700/);
  }
  await chmod(folder, 0o700);
  await chown(folder, NOBODY_ELSES, NOBODY_ELSES);
  refused(/belongs to the user 54321, who is neither root, nor you, nor the owner of the checkout.*chown -R/);
});

folders(
  "one that is used for something else is refused, and stays as it is",
  async ({ folder, settings }) => {
    await mkdir(folder, { recursive: true, mode: 0o755 });
    await writeFile(join(folder, "precious"), "");
    for (const path of [folder, join(folder, "precious")]) await chown(path, 0, NOBODY_ELSES);
    for (const act of [checkStateDir, openStateDir])
      assert.throws(
        () => act(settings),
        (error: unknown) =>
          error instanceof UsageError && /something else: it contains precious/.test(error.message),
      );
    const { mode, gid } = await stat(folder);
    assert.equal([mode & 0o777, gid], [0o755, NOBODY_ELSES]);
    assert.is((await stat(join(folder, "precious"))).gid, NOBODY_ELSES);
  },
);

folders("a link is refused: it may lead anywhere", async ({ folder, settings }) => {
  await mkdir(`${folder}-elsewhere`, { recursive: true, mode: 0o755 });
  await symlink(`${folder}-elsewhere`, folder);
  for (const act of [checkStateDir, openStateDir])
    assert.throws(
      () => act(settings),
      (error: unknown) => error instanceof UsageError && error.message.includes("it is a symbolic link"),
    );
  assert.is((await stat(`${folder}-elsewhere`)).mode & 0o777, 0o755);
});

folders("of one that is in use, only the tool's own files are handed over", async ({ folder, settings }) => {
  openStateDir(settings);
  const owned = ["lock", "blue-green.log", ".history.jsonl.tmp"];
  for (const name of [...owned, "@eaDir"]) {
    await writeFile(join(folder, name), "");
    await chown(join(folder, name), NOBODY_ELSES, NOBODY_ELSES);
  }
  await symlink(join(folder, "@eaDir"), join(folder, "vault.json"));
  openStateDir(settings);
  const { uid } = await stat(ROOT);
  for (const name of owned) assert.is((await stat(join(folder, name))).uid, uid, name);
  assert.is((await stat(join(folder, "@eaDir"))).uid, NOBODY_ELSES);
});

folders("what is no folder, or in none, is refused", async ({ folder, settings }) => {
  await mkdir(join(folder, ".."));
  await writeFile(folder, "");
  assert.throws(
    () => openStateDir(settings),
    (error: unknown) => error instanceof UsageError && error.message.includes("it is not a folder"),
  );
  assert.throws(
    () => openStateDir(settingsFor("/proc/none/state")),
    (error: unknown) => error instanceof StateFileError,
  );
});
folders.run();

/** Blue serves; its container has been broken into. */
const attacks = suite<{ stack: Scratch; outside: string }>("a compromised API");
attacks.before(async (context) => {
  context.stack = await createReleased("attack", { HEALTH_RETRIES: "60" });
  context.outside = join(context.stack.folder, "outside");
  await mkdir(context.outside);
  await writeFile(join(context.stack.folder, "vault/note.md"), ""); // an empty vault would be taken for one that is lost
  for (const name of [".active-color", "victim"]) await writeFile(join(context.outside, name), "precious\n");
});
attacks.after(({ stack }) => stack.remove());

async function nothingOutsideWasTouched(outside: string): Promise<void> {
  assert.equal((await readdir(outside)).toSorted(), [".active-color", "victim"]);
  for (const name of [".active-color", "victim"])
    assert.is(await readFile(join(outside, name), "utf8"), "precious\n");
}

/** Does something in the container of the color that serves, as root. */
async function inside(stack: Scratch, command: string, ...options: string[]): Promise<void> {
  const { color } = await stack.front();
  const run = await stack.docker("exec", ...options, `${stack.project}-api-${color}`, "sh", "-c", command);
  assert.is(run.exitCode, 0, run.stdall);
}

async function releaseAndRollback(stack: Scratch): Promise<string> {
  let output = "";
  for (const act of [stack.deploy, stack.rollback]) {
    const { color } = await stack.front();
    const run = await act();
    output += run.stdall;
    assert.is(run.exitCode, 0, run.stdall);
    assert.is.not((await stack.front()).color, color);
    assert.equal(await stack.running(), [(await stack.front()).color]);
  }
  return output;
}

const FILES = [
  ".active-color",
  "..active-color.tmp",
  ".active-color.lock",
  "history.jsonl",
  "blue-green.log",
  "blue-green.log.1",
];

attacks(
  "puts links in the place of every file that the tool ever wrote there",
  async ({ stack, outside }) => {
    for (const name of FILES) await inside(stack, `ln -sfn ${outside}/victim /vault/_build/${name}`);
    const output = await releaseAndRollback(stack);
    await nothingOutsideWasTouched(outside);
    assert.match(output, `Cannot read the state file ${stack.stateFile}: ELOOP`);
    assert.ok((await lstat(stack.stateFile)).isFile());
    assert.is(await stack.marked(), `${(await stack.front()).color}\n`);
  },
);

for (const [what, command] of Object.entries({
  "a folder with something in it": "rm -rf .active-color && mkdir -p .active-color/x",
  "a FIFO": "rm -rf .active-color && mkfifo .active-color",
  "a file without an end": "rm -rf .active-color && truncate -s 1T .active-color",
  "the other color": "rm -rf .active-color && echo green > .active-color",
})) {
  attacks(`makes the state file ${what}: it is said, and the way back is open`, async ({ stack }) => {
    await inside(stack, `cd /vault/_build && ${command}`);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, /(Cannot read the state file|the state file says green|was not written)/);
    await inside(stack, "rm -rf /vault/_build/.active-color");
    assert.is((await stack.rollback()).exitCode, 0);
  });
}

attacks(
  "exchanges the folder for a link to the host, again and again, in a release and a rollback",
  async ({ stack, outside }) => {
    const loop = `cd /vault; while [ ! -e stop ]; do mv _build _b; ln -s ${outside} _build; rm _build; mv -T _b _build || rm -rf _build; done; touch stopped`;
    await inside(stack, loop, "-d");
    await releaseAndRollback(stack);
    await nothingOutsideWasTouched(outside);
    await writeFile(join(stack.folder, "vault/stop"), "");
    await inside(stack, "rm -rf /vault/_build /vault/_b /vault/stop /vault/stopped");
    await inside(stack, `ln -s ${outside} /vault/_build`);
    const output = await releaseAndRollback(stack);
    assert.match(
      output,
      `${stack.folder}/vault/_build leads to ${outside}: a container may have placed a symbolic link there`,
    );
    await nothingOutsideWasTouched(outside);
    await inside(stack, "rm /vault/_build");
  },
);

attacks("holds every lock that it can reach", async ({ stack }) => {
  await inside(
    stack,
    "mkdir -p /vault/_build; exec 3<>/vault/_build/.active-color.lock; flock 3; exec sleep 200",
    "-d",
  );
  await waitFor("it is held", async () => (await readdir(join(stack.folder, "vault/_build"))).length > 0);
  await releaseAndRollback(stack);
});

attacks("writes to its log what looks like the tool's, with control characters", async ({ stack }) => {
  const evil = await stack.apiVersion("6.6.6");
  const main = join(evil.LOOP_API_CONTEXT ?? "", "api/main.py");
  const line =
    '\nprint("\\x1b[2J\\x9b1A\\n2030-01-01T00:00:00.000Z \u2713 mark green as active", flush=True)\n';
  await writeFile(main, `${await readFile(main, "utf8")}`.replace("\nVERSION", `${line}VERSION`));
  for (const args of [[], ["--verbose"]]) {
    const run = await stack.deploy(args, {
      ...evil,
      LOOP_FAULT: "unhealthy",
      HEALTH_RETRIES: "15", // it has to come so far as to write its log
    });
    assert.is(run.exitCode, 1, run.stdall);
    const log = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
    for (const text of [run.stdall, log]) {
      assert.match(text, "\\x1b[2J");
      assert.match(text, "2030-01-01T00:00:00.000Z ✓ mark green as active");
      assert.not.match(text, /[^\P{Cc}\n\t]/u);
      assert.not.match(text, /^(\S+Z )?2030-01-01T00:00:00.000Z ✓/m);
    }
  }
});

attacks("two checkouts of one project: the second is told where the first is, exit 2", async ({ stack }) => {
  const other = join(stack.folder, "other");
  await mkdir(other);
  for (const name of ["docker-compose.blue-green.yml", "nginx"])
    await cp(join(stack.folder, name), join(other, name), { recursive: true });
  const elsewhere = {
    COMPOSE_FILE: join(other, "docker-compose.blue-green.yml"),
    STATE_DIR: join(other, "state"),
  };
  for (const run of [await stack.deploy([], elsewhere), await stack.rollback([], elsewhere)]) {
    assert.is(run.exitCode, 2, run.stdall);
    assert.match(
      run.stderr,
      `${stack.nginxContainer} mounts the folder ${stack.folder}/nginx, but this checkout has ${other}/nginx`,
    );
  }
  await symlink(stack.folder, join(stack.folder, "alias"));
  const same = {
    COMPOSE_FILE: (stack.env.COMPOSE_FILE ?? "").replaceAll(stack.folder, join(stack.folder, "alias")),
  };
  assert.is((await stack.rollback(["--dry-run"], same)).exitCode, 0, "the same folder by another name");
});
attacks.run();

const users = suite("root and the owner of the checkout in turn");
users("each finds the state that the other left, and can go on", async () => {
  const stack = await createScratch("users");
  const uid = NOBODY_ELSES;
  try {
    const checkout = join(stack.folder, "checkout");
    for (const part of [
      "lib",
      "scripts",
      "nginx",
      "examples",
      "docker-compose.blue-green.yml",
      "package.json",
    ])
      await cp(join(ROOT, part), join(checkout, part), {
        recursive: true,
        filter: (file) => !file.endsWith("active-upstream.conf"),
      });
    await symlink(join(ROOT, "node_modules"), join(checkout, "node_modules"));
    await chmod(join(stack.folder, ".."), 0o755);
    for (const home of ["root", "owner"]) await mkdir(join(stack.folder, home)); // Docker keeps files there
    await $({ quiet: true })`chown -R -h ${uid}:${uid} ${stack.folder}`;
    const { STATE_DIR: _, ...settings } = stack.env;
    const env = {
      ...settings,
      HEALTH_RETRIES: "60",
      COMPOSE_FILE: join(checkout, "docker-compose.blue-green.yml"),
    };
    const group = (await stat("/var/run/docker.sock")).gid;
    const run = async (who: "root" | "owner", script: string) => {
      const as = who === "root" ? [] : ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, `--groups=${group}`];
      const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
      const command = [...as, process.execPath, "--import", loader, join(checkout, `scripts/${script}.mts`)];
      const output = await $({
        quiet: true,
        nothrow: true,
        env: { ...env, HOME: join(stack.folder, who) },
        cwd: "/",
        stdio: ["ignore", "pipe", "pipe"],
      })`${command}`;
      assert.is(output.exitCode, 0, `${script} as ${who}: ${output.stdall}`);
      assert.not.match(output.stderr, "Warning");
      const folder = join(checkout, ".state", stack.project);
      for (const path of [
        folder,
        join(folder, ".."),
        ...(await readdir(folder)).map((name) => join(folder, name)),
      ])
        assert.is((await stat(path)).uid, uid, `${path} after ${script} as ${who}`);
    };
    await run("root", "deploy-blue-green");
    await run("owner", "deploy-blue-green");
    await run("root", "rollback");
    await run("owner", "rollback");
    await run("owner", "status");
    await run("root", "deploy-blue-green");
    await run("owner", "rollback");
  } finally {
    await stack.remove();
  }
});
users.run();
