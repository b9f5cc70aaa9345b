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
import type { Verb } from "../../bench/testbed/run.ts";
import { createReleasedScratch, createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { type Script, scriptsIn } from "../../bench/testbed/script.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { StateFileError, UsageError } from "../../lib/errors.ts";
import { checkStateDir, openStateDir } from "../../lib/run/state-dir.ts";
import { loadSettings, ROOT, type Settings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const OTHER_USER = 54321;

const settingsFor = (STATE_DIR: string): Settings =>
  loadSettings({ STATE_DIR }, "/nonexistent/.env.blue-green");

const folders = suite<{ folder: string; settings: Settings }>("state folder");
folders.before.each(async (context) => {
  context.folder = join(await tempFolder("statedir"), "parent/state");
  context.settings = settingsFor(context.folder);
});

folders(
  "the folder and its parent are created for their owner only, and a check creates nothing",
  async ({ folder, settings }) => {
    checkStateDir(settings);
    assert.not(await stat(folder).catch(() => undefined));
    openStateDir(settings);
    openStateDir(settings);
    for (const path of [folder, join(folder, "..")]) assert.is((await stat(path)).mode & 0o777, 0o700);
  },
);

folders(
  "a folder that others could have written to is rejected with instructions",
  async ({ folder, settings }) => {
    openStateDir(settings);
    const assertRejected = (reason: RegExp) => {
      for (const act of [checkStateDir, openStateDir])
        assert.throws(
          () => act(settings),
          (error: unknown) => error instanceof UsageError && reason.test(`${error.message} ${error.next}`),
        );
    };
    for (const mode of [0o770, 0o702]) {
      await chmod(folder, mode);
      assertRejected(/its mode is 7[70][02], so others can write to it.*chmod 700/);
    }
    await chmod(folder, 0o700);
    await chown(folder, OTHER_USER, OTHER_USER);
    assertRejected(
      /belongs to the user 54321, who is neither root, nor you, nor the owner of the checkout.*chown -R/,
    );
  },
);

folders(
  "a folder that is used for something else is rejected and not changed",
  async ({ folder, settings }) => {
    await mkdir(folder, { recursive: true, mode: 0o755 });
    await writeFile(join(folder, "precious"), "");
    for (const path of [folder, join(folder, "precious")]) await chown(path, 0, OTHER_USER);
    for (const act of [checkStateDir, openStateDir])
      assert.throws(
        () => act(settings),
        (error: unknown) =>
          error instanceof UsageError && /something else: it contains precious/.test(error.message),
      );
    const { mode, gid } = await stat(folder);
    assert.equal([mode & 0o777, gid], [0o755, OTHER_USER]);
    assert.is((await stat(join(folder, "precious"))).gid, OTHER_USER);
  },
);

folders("a symbolic link is rejected", async ({ folder, settings }) => {
  await mkdir(`${folder}-elsewhere`, { recursive: true, mode: 0o755 });
  await symlink(`${folder}-elsewhere`, folder);
  for (const act of [checkStateDir, openStateDir])
    assert.throws(
      () => act(settings),
      (error: unknown) => error instanceof UsageError && error.message.includes("it is a symbolic link"),
    );
  assert.is((await stat(`${folder}-elsewhere`)).mode & 0o777, 0o755);
});

folders(
  "in a folder in use, only the tool's own files are given to the owner of the checkout",
  async ({ folder, settings }) => {
    openStateDir(settings);
    const ownFiles = ["lock", "blue-green.log", ".history.jsonl.tmp"];
    for (const name of [...ownFiles, "@eaDir"]) {
      await writeFile(join(folder, name), "");
      await chown(join(folder, name), OTHER_USER, OTHER_USER);
    }
    await symlink(join(folder, "@eaDir"), join(folder, "vault.json"));
    openStateDir(settings);
    const { uid } = await stat(ROOT);
    for (const name of ownFiles) assert.is((await stat(join(folder, name))).uid, uid, name);
    assert.is((await stat(join(folder, "@eaDir"))).uid, OTHER_USER);
  },
);

folders("a file, and a path whose parent does not exist, are rejected", async ({ folder, settings }) => {
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

/** One color serves, and an attacker controls its container. */
const attacks = suite<{ stack: Scratch; outside: string }>("a compromised API");
attacks.before(async (context) => {
  context.stack = await createReleasedScratch("attack", { HEALTH_RETRIES: "60" });
  context.outside = join(context.stack.folder, "outside");
  await mkdir(context.outside);
  await writeFile(join(context.stack.folder, "vault/note.md"), ""); // an empty vault would look unmounted
  for (const name of [".active-color", "victim"]) await writeFile(join(context.outside, name), "precious\n");
});
attacks.after(({ stack }) => stack.remove());

async function assertOutsideUntouched(outside: string): Promise<void> {
  assert.equal((await readdir(outside)).toSorted(), [".active-color", "victim"]);
  for (const name of [".active-color", "victim"])
    assert.is(await readFile(join(outside, name), "utf8"), "precious\n");
}

/** Runs a shell command in the container of the serving color, as root. */
async function execInside(stack: Scratch, command: string, ...options: string[]): Promise<void> {
  const { color } = await stack.get();
  const run = await stack.docker("exec", ...options, `${stack.project}-api-${color}`, "sh", "-c", command);
  assert.is(run.exitCode, 0, run.stdall);
}

/** Makes a release or a rollback. Returns its output. */
async function succeed(stack: Scratch, verb: Verb): Promise<string> {
  const { color } = await stack.get();
  const run = await stack[verb]();
  assert.is(run.exitCode, 0, run.stdall);
  assert.is.not((await stack.get()).color, color);
  assert.equal(await stack.running(), [(await stack.get()).color]);
  return run.stdall;
}

const FILES = [
  ".active-color",
  "..active-color.tmp",
  ".active-color.lock",
  "history.jsonl",
  "blue-green.log",
  "blue-green.log.1",
];

/** The name of the state file's folder in a container. */
const FOLDER = "/vault/_build";

attacks("links in place of the tool's files in the vault are not followed", async ({ stack, outside }) => {
  for (const name of FILES) await execInside(stack, `ln -sfn ${outside}/victim ${FOLDER}/${name}`);
  const output = await succeed(stack, "rollback");
  await assertOutsideUntouched(outside);
  assert.match(output, `Cannot read the state file ${stack.stateFile}: ELOOP`);
  assert.ok((await lstat(stack.stateFile)).isFile());
  assert.is(await stack.readStateFile(), `${(await stack.get()).color}\n`);
});

attacks(
  "a state file replaced with a folder with content is reported and does not prevent a rollback; neither does a lock that the container holds",
  async ({ stack, outside }) => {
    // The other files still are links: this run does not follow them either.
    await execInside(stack, `cd ${FOLDER} && rm -rf .active-color && mkdir -p .active-color/x`);
    const hold = `rm ${FOLDER}/.active-color.lock; exec 3<>${FOLDER}/.active-color.lock; flock 3; exec sleep 200`;
    await execInside(stack, hold, "-d");
    const lock = join(stack.folder, "vault/_build/.active-color.lock");
    await waitFor("the lock is held", async () => (await lstat(lock)).isFile());
    assert.match(await succeed(stack, "rollback"), /(Cannot read the state file|was not written)/);
    await assertOutsideUntouched(outside);
  },
);

attacks(
  "replacing the folder with a link to the host, before or during a run, exposes nothing",
  async ({ stack, outside }) => {
    await execInside(stack, `rm -rf ${FOLDER} && mkdir ${FOLDER}`);
    const loop = `cd /vault; while [ ! -e stop ]; do mv _build _b; ln -s ${outside} _build; rm _build; mv -T _b _build || rm -rf _build; done; touch stopped`;
    await execInside(stack, loop, "-d");
    try {
      await succeed(stack, "rollback");
      await assertOutsideUntouched(outside);
    } finally {
      await writeFile(join(stack.folder, "vault/stop"), ""); // else the loop would use a core until the end of this file
    }
    await execInside(stack, "rm -rf /vault/_build /vault/_b /vault/stop /vault/stopped");
    await execInside(stack, `ln -s ${outside} /vault/_build`);
    const output = await succeed(stack, "rollback");
    assert.match(
      output,
      `${stack.folder}/vault/_build leads to ${outside}: a container may have placed a symbolic link there`,
    );
    await assertOutsideUntouched(outside);
    await execInside(stack, "rm /vault/_build");
  },
);

attacks(
  "forged tool output in its log is escaped, and a state file that names the idle color is corrected",
  async (context) => {
    const { stack } = context;
    const { color: serving } = await stack.get();
    const idle = serving === "blue" ? "green" : "blue";
    await execInside(stack, `mkdir -p ${FOLDER} && echo ${idle} > ${FOLDER}/.active-color`);
    const forging = await stack.apiVersion("6.6.6");
    const main = join(forging.LOOP_API_CONTEXT ?? "", "api/main.py");
    const line =
      '\nprint("\\x1b[2J\\x9b1A\\n2030-01-01T00:00:00.000Z \u2713 mark green as active", flush=True)\n';
    await writeFile(main, `${await readFile(main, "utf8")}`.replace("\nVERSION", `${line}VERSION`));
    // The log is in the error, and with --verbose also in the output of `docker logs`.
    const run = await stack.deploy(["--verbose"], {
      ...forging,
      LOOP_FAULT: "unhealthy",
      HEALTH_RETRIES: "5", // it must have time to write its log
    });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, `the state file says ${idle}, but nginx serves ${serving}: correcting it`);
    assert.equal([(await stack.get()).color, await stack.readStateFile()], [serving, `${serving}\n`]);
    assert.is(run.stdall.split("\\x1b[2J").length - 1, 2, run.stdall);
    const log = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
    for (const text of [run.stdall, log]) {
      assert.match(text, "\\x1b[2J");
      assert.match(text, "2030-01-01T00:00:00.000Z ✓ mark green as active");
      assert.not.match(text, /[^\P{Cc}\n\t]/u);
      assert.not.match(text, /^(\S+Z )?2030-01-01T00:00:00.000Z ✓/m);
    }
  },
);

attacks(
  "a second checkout of one project exits with 2; another name of the first, a FIFO as state file, and a huge one, do no harm",
  async ({ stack }) => {
    const other = join(stack.folder, "other");
    await mkdir(other);
    for (const name of ["docker-compose.blue-green.yml", "nginx"])
      await cp(join(stack.folder, name), join(other, name), { recursive: true });
    const elsewhere = {
      COMPOSE_FILE: join(other, "docker-compose.blue-green.yml"),
      STATE_DIR: join(other, "state"),
    };
    await execInside(stack, `rm ${FOLDER}/.active-color && mkfifo ${FOLDER}/.active-color`);
    for (const run of [await stack.deploy([], elsewhere), await stack.rollback([], elsewhere)]) {
      assert.is(run.exitCode, 2, run.stdall);
      assert.match(run.stderr, "Cannot read the state file");
      assert.match(
        run.stderr,
        `${stack.nginxContainer} mounts the folder ${stack.folder}/nginx, but this checkout has ${other}/nginx`,
      );
    }
    await symlink(stack.folder, join(stack.folder, "alias"));
    const same = {
      COMPOSE_FILE: (stack.env.COMPOSE_FILE ?? "").replaceAll(stack.folder, join(stack.folder, "alias")),
    };
    await execInside(stack, `rm ${FOLDER}/.active-color && truncate -s 1T ${FOLDER}/.active-color`);
    const dryRun = await stack.rollback(["--dry-run"], same);
    assert.is(dryRun.exitCode, 0, "the same folder under another name must be accepted");
    assert.match(dryRun.stderr, "Cannot read the state file"); // and a huge one must not be read
  },
);
attacks.run();

const users = suite("runs by root and by the owner of the checkout");
users("each can use the state and the key that the other left", async () => {
  const stack = await createScratch("users");
  const uid = OTHER_USER;
  try {
    const checkout = join(stack.folder, "checkout");
    for (const part of ["lib", "scripts", "nginx", "docker-compose.blue-green.yml", "package.json"])
      await cp(join(ROOT, part), join(checkout, part), {
        recursive: true,
        filter: (file) => !/\/(active-upstream|probe-key|sessions)\.conf$/.test(file),
      });
    for (const name of ["LOOP_API_CONTEXT", "LOOP_AUTH_CONTEXT"])
      await cp(stack.env[name] ?? "", join(checkout, name), { recursive: true });
    await symlink(join(ROOT, "node_modules"), join(checkout, "node_modules"));
    const commandOf = await scriptsIn(checkout);
    await chmod(join(stack.folder, ".."), 0o755);
    for (const home of ["root", "owner"]) await mkdir(join(stack.folder, home)); // Docker writes files there
    await $({ quiet: true })`chown -R -h ${uid}:${uid} ${stack.folder}`;
    const { STATE_DIR: _, ...settings } = stack.env;
    const env = {
      ...settings,
      COMPOSE_FILE: join(checkout, "docker-compose.blue-green.yml"),
      LOOP_API_CONTEXT: join(checkout, "LOOP_API_CONTEXT"),
      LOOP_AUTH_CONTEXT: join(checkout, "LOOP_AUTH_CONTEXT"),
    };
    const key = join(checkout, "nginx/probe-key.conf");
    const keys = new Set<string>();
    const group = (await stat("/var/run/docker.sock")).gid;
    const run = async (who: "root" | "owner", script: Script) => {
      const as = who === "root" ? [] : ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, `--groups=${group}`];
      const command = [...as, ...commandOf(script)];
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
      keys.add(await readFile(key, "utf8"));
      assert.is((await stat(key)).mode & 0o777, 0o600);
      for (const path of [
        key,
        folder,
        join(folder, ".."),
        ...(await readdir(folder)).map((name) => join(folder, name)),
      ])
        assert.is((await stat(path)).uid, uid, `${path} after ${script} as ${who}`);
    };
    await run("root", "deploy-blue-green");
    await run("owner", "deploy-blue-green");
    await run("root", "rollback");
    await run("owner", "status");
    assert.is(keys.size, 1, "a run could not read the key of the other, and wrote its own");
  } finally {
    await stack.remove();
  }
});
users.run();
