import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $, which } from "zx";
import { startRun, type Verb, waitForLock } from "../../bench/testbed/run.ts";
import { createReleasedScratch, freePort, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { type Color, getInactiveColor, isColor } from "../../lib/color.ts";
import { readCacheRecords } from "../../lib/docker/build-cache.ts";
import { staleRecords } from "../../lib/release/prune.ts";
import { readHistory } from "../../lib/run/history.ts";
import { ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { receiveNotices } from "../notices.ts";
import { suite } from "../suite.ts";

/** At the start and at the end of each test one color serves, and the other is stopped. */
const unattended = suite<{ stack: Scratch; link: string; foreignImage: string }>("unattended");
unattended.before(async (context) => {
  context.stack = await createReleasedScratch("unattended");
  context.link = join(context.stack.folder, "nginx/active-upstream.conf");
  context.foreignImage = await createForeignImage(context.stack);
});
unattended.after(async ({ stack, foreignImage }) => {
  await stack.docker("rmi", "--force", `${stack.project}-other`, foreignImage);
  await stack.remove();
});

/** Creates an untagged image of another project, which no run may remove. Returns its id. */
async function createForeignImage({ folder, project, docker }: Scratch): Promise<string> {
  const context = join(folder, "other-project");
  await mkdir(context);
  const ids: string[] = [];
  for (const text of ["one", "two"]) {
    await writeFile(
      join(context, "Dockerfile"),
      `FROM debian:trixie-slim\nLABEL of=${project} text=${text}\n`,
    );
    ids.push((await docker("build", "-q", "-t", `${project}-other`, context)).stdout.trim());
  }
  return ids[0] ?? "";
}

/** In the versions of this file's releases: a repeated test run must not find their builds in the cache. */
const unique = Date.now();

async function servingColor(stack: Scratch): Promise<Color> {
  const { color } = await stack.get();
  return isColor(color) ? color : (assert.unreachable(`${color} serves`) as never);
}

async function assertServes(stack: Scratch, color: Color): Promise<void> {
  const { status, color: serving } = await stack.get();
  assert.equal(
    [status, serving, await stack.running(), await stack.readStateFile()],
    [200, color, [color], `${color}\n`],
  );
}

unattended(
  "a rollback is completed, with warnings in the log file, although its output pipe is closed, as with `| head -1`, NOTIFY_URL cannot be reached, and the vault is read-only; until it ends, others exit with 4 at once and name it",
  async ({ stack }) => {
    const before = await servingColor(stack);
    const after = getInactiveColor(before);
    const NOTIFY_URL = `http://127.0.0.1:${await freePort()}/?token=very-secret`;
    const vault = dirname(dirname(stack.stateFile));
    await $({ quiet: true })`mount --bind ${vault} ${vault} && mount -o remount,ro,bind ${vault}`;
    try {
      const since = Date.now();
      const first = startRun(stack, "rollback", { NOTIFY_URL, VERIFY_SECONDS: "3" }, [], ["--verbose"]);
      await waitForLock(stack, since);
      await first.waitForSteps(1);
      first.closeOutput();
      for (const second of await Promise.all([stack.deploy(), stack.rollback()])) {
        assert.is(second.exitCode, 4, second.stdall);
        assert.match(second.stderr, /Another run holds the lock: the rollback with pid \d+, since \d{4}-/);
      }
      const { exitCode, output } = await first.ended;
      const log = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
      assert.is(exitCode, 0, log);
      assert.match(log, `the state file ${stack.stateFile} was not written: EROFS`);
      assert.match(log, "Warning: NOTIFY_URL was not reached: ECONNREFUSED");
      for (const text of [output, log]) assert.not.match(text, "very-secret");
    } finally {
      await $`umount ${vault}`.quiet();
    }
    assert.equal(
      [await servingColor(stack), await stack.running(), await stack.readStateFile()],
      [after, [after], `${before}\n`],
    );
  },
);

unattended(
  "each run sends a notification; with --quiet, stdout has one line or none, and the log file has everything; a missing active link is corrected by a run that then fails",
  async ({ stack, link }) => {
    const from = await servingColor(stack);
    const to = getInactiveColor(from);
    const notices = await receiveNotices();
    const NOTIFY_URL = `${notices.url}?token=very-secret`;
    const bad = { NOTIFY_URL, LOOP_FAULT: "unhealthy", HEALTH_RETRIES: "2" };
    await rm(link);
    const failed = await stack.deploy(["--quiet"], { ...(await stack.apiVersion(`9.0.${unique}`)), ...bad });
    const corrected = await readlink(link).catch(() => "no link");
    const done = await stack.rollback(["--quiet"], { NOTIFY_URL });
    notices.close();
    assert.is(corrected, `${from}-upstream.conf`);
    assert.equal([failed.exitCode, done.exitCode], [1, 0], failed.stdall + done.stdall);

    assert.is(failed.stdout, "");
    assert.match(failed.stderr, "Health check failed, rollback not performed");
    assert.match(
      failed.stderr,
      `Undo steps: stop ${to}, restore the previous image of ${to}, remove the failed image.`,
    );
    assert.match(
      done.stdout,
      /^\S+Z Rolled back (blue → green|green → blue): \S+ \(sha256:[0-9a-f]+[^)]*\) in [\d.]+ s\n$/,
    );
    assert.is(done.stderr, "");
    const log = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
    for (const line of [`✓ switch nginx to ${to}`, `Rolled back ${from} → ${to}`]) assert.match(log, line);

    const [first, second] = notices.received.map((notice) => JSON.parse(notice));
    assert.equal([first.result, first.exitCode, first.from, first.to], ["HealthError", 1, from, to]);
    assert.equal([second.result, second.verb, second.from, second.to], ["done", "rollback", from, to]);
    assert.ok(second.seconds > 0.5, String(second.seconds));
    const entry = (await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1);
    assert.ok(second.traffic, "the responses that the rollback judged");
    assert.equal(second.traffic, entry?.traffic);
    for (const text of [failed.stdall, done.stdall, log]) assert.not.match(text, "very-secret");
    await assertServes(stack, to);
  },
);

/** Creates a folder with the commands that the scripts use, except docker. Returns it, for PATH. */
async function createPathWithoutDocker({ folder }: Scratch): Promise<string> {
  const bin = join(folder, "bin");
  await mkdir(bin);
  for (const command of ["bash", "sh", "env", "flock", "node"])
    await symlink(await which(command), join(bin, command));
  return bin;
}

const CONTAINER_MANAGER = "/var/packages/ContainerManager/target/usr/bin/docker";

unattended(
  "a run works as under cron: no environment, no stdin, umask 077, docker only in Container Manager's path",
  async (context) => {
    const { stack } = context;
    const bin = await createPathWithoutDocker(stack);
    const isFake = !existsSync("/var/packages"); // on a NAS it exists, and is not touched
    if (isFake) {
      await mkdir(dirname(CONTAINER_MANAGER), { recursive: true });
      await symlink(await which("docker"), CONTAINER_MANAGER);
    }
    try {
      const { PATH: _path, HOME: _home, ...settings } = stack.env;
      const api = await stack.apiVersion(`9.1.${unique}`);
      const environment = Object.entries({ ...settings, ...api, HOME: stack.folder, PATH: bin, LC_ALL: "C" });
      const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
      const run = await $({ quiet: true, nothrow: true, cwd: "/", stdio: ["ignore", "pipe", "pipe"] })`
      umask 077; exec <&-
      env -i ${environment.map(([name, value]) => `${name}=${value}`)} node --import ${loader} ${join(ROOT, "scripts/deploy-blue-green.mts")} --quiet`;
      assert.is(run.exitCode, 0, run.stdall);
      assert.match(run.stdout, /^\S+Z Released (blue → green|green → blue): .*\n$/);
      assert.is((await stat(stack.stateFile)).mode & 0o777, 0o600);
    } finally {
      if (isFake) await rm("/var/packages", { recursive: true });
    }
  },
);

unattended(
  "releases with changing content leave no images behind and do not touch those of other projects",
  async ({ stack, foreignImage }) => {
    // The tests before have built two versions: one failed, one was released.
    const busyOnce = await fakeDocker(
      stack,
      "docker-busy",
      `"system df "*) mkdir ${stack.folder}/asked && echo "Error response from daemon: a disk usage operation is already running" >&2 && exit 1 ;;`,
    );
    const api = await stack.apiVersion(`9.2.${unique}`);
    const run = await stack.deploy([], { ...api, ...busyOnce, KEEP_RELEASES: "2" });
    assert.is(run.exitCode, 0, run.stdall);
    assert.ok(existsSync(join(stack.folder, "asked")), "the build cache was not listed");
    let cache = { stdout: "" };
    await waitFor(
      "Docker lists the build cache, which it does for one command at a time",
      async () => {
        cache = await stack.docker("system", "df", "--verbose", "--format", "{{json .BuildCache}}");
        return cache.stdout !== "";
      },
      60,
      1,
    );
    const runs = await readHistory(join(stack.stateDir, "history.jsonl"));
    const records = readCacheRecords(cache.stdout);
    const [beforeLast, first] = [runs.slice(0, -1), Date.parse(runs[0]?.time ?? "")];
    assert.ok(
      records.some(({ created }) => created >= first),
      "the builds left no cache records, so this test proves nothing",
    );
    assert.ok(
      records.every(({ used }) => used > 0),
      "the time of their last use cannot be read",
    );
    assert.equal(staleRecords(records, beforeLast), []);
    const dangling = await stack.docker("images", "-q", "--no-trunc", "--filter", "dangling=true");
    const ours = ["--filter", `label=com.docker.compose.project=${stack.project}`];
    const left = await stack.docker("images", "-q", "--filter", "dangling=true", ...ours);
    assert.is(left.stdout, "");
    assert.match(dangling.stdout, foreignImage);
    await assertServes(stack, await servingColor(stack));
  },
);

/** Creates a docker command in which some cases behave differently. Returns it as a setting. */
async function fakeDocker(stack: Scratch, name: string, cases: string): Promise<{ DOCKER_CMD: string }> {
  const file = join(stack.folder, name);
  await writeFile(file, `#!/bin/sh\ncase "$*" in\n${cases}\nesac\nexec docker "$@"\n`);
  await chmod(file, 0o755);
  return { DOCKER_CMD: file };
}

unattended(
  "if both colors run, --keep with the name of a color keeps that one; a link to a file that does not exist is corrected; then too little disk space is reported before a build",
  async ({ stack, link }) => {
    const serving = await servingColor(stack);
    const other = getInactiveColor(serving);
    await stack.docker("start", `${stack.project}-api-${other}`);
    await rm(link);
    await symlink("nowhere.conf", link);
    const small = join(stack.folder, "small");
    await mkdir(small);
    await $({ quiet: true })`mount -t tmpfs -o size=1m tmpfs ${small}`;
    try {
      const onSmallDisk = await fakeDocker(stack, "docker-small", `"info "*) echo '${small}'; exit ;;`);
      const run = await stack.deploy(["--keep", serving], onSmallDisk);
      assert.is(run.exitCode, 1, run.stdall);
      assert.match(
        run.stderr,
        `the active link points at nowhere.conf, but nginx serves ${serving}: correcting it`,
      );
      assert.match(run.stdout, `✓ stop ${other}`);
      assert.match(run.stderr, `Not enough disk space to build: 0.0 GiB free in ${small}`);
      assert.match(run.stderr, /The last image took 0\.[1-9] GiB/);
      assert.not.match(run.stdout, "✓ build");
      assert.is(await readlink(link), `${serving}-upstream.conf`);
    } finally {
      await $`umount ${small}`.quiet();
    }
    await assertServes(stack, serving);
  },
);

unattended(
  "a hanging daemon fails the run after 30 s; an exec that hangs during the switch fails it as well",
  async ({ stack, link }) => {
    const serving = await servingColor(stack);
    const hangingDaemon = await fakeDocker(stack, "docker-hung", '"version "*) sleep 300 ;;');
    const since = performance.now();
    // At the same time, with a lock of its own: it hangs before it changes anything.
    const elsewhere = { ...hangingDaemon, STATE_DIR: join(stack.folder, "state-hung") };
    const hung = stack.deploy([], elsewhere).then((run) => ({ run, ms: performance.now() - since }));
    // Only the switch's own reload, not the one that restores the link.
    const hangingExec = await fakeDocker(stack, "docker-hung-exec", '"exec "*"looks="*) sleep 300 ;;');
    const exec = await stack.rollback([], hangingExec);
    assert.is(exec.exitCode, 3, exec.stdall);
    assert.match(exec.stderr, "Nginx reload failed, manual intervention required");
    assert.match(exec.stderr, "did not end within 40 s");
    assert.is(await readlink(link), `${serving}-upstream.conf`);
    assert.is((await stack.get()).color, serving);
    await stack.docker("stop", `${stack.project}-api-${getInactiveColor(serving)}`);

    const { run, ms } = await hung;
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, "did not end within 30 s");
    assert.match(run.stderr, "Next: Check that Docker works");
    assert.ok(ms < 40_000, `${ms} ms`);
    await assertServes(stack, serving);
  },
);

const REJECTED: [
  what: string,
  code: number,
  message: string,
  verbs: readonly Verb[],
  setUp: (s: Scratch) => Promise<Record<string, string>>,
][] = [
  [
    "an empty color record",
    1,
    'says ""',
    ["deploy", "rollback"],
    async ({ stateDir }) => writeFile(join(stateDir, "active-color"), "").then(() => ({})),
  ],
  [
    "a state folder whose parent does not exist",
    1,
    "Cannot use the state folder /proc/none/state",
    ["rollback"], // a deploy: below, with a read-only one
    async () => ({ STATE_DIR: "/proc/none/state" }),
  ],
  [
    "a wrong setting",
    2,
    'NGINX_PORT is "70000": it must be a port',
    ["deploy"],
    async () => ({ NGINX_PORT: "70000" }),
  ],
];
for (const [what, code, message, verbs, setUp] of REJECTED) {
  unattended(`${what} is reported with exit code ${code}, and nothing changes`, async ({ stack }) => {
    const serving = await servingColor(stack);
    for (const verb of verbs) {
      const { exitCode, stderr } = await stack[verb]([], await setUp(stack));
      assert.is(exitCode, code, stderr);
      assert.match(stderr, message);
      assert.match(stderr, "Next: ");
    }
    await writeFile(join(stack.stateDir, "active-color"), `${serving}\n`);
    await assertServes(stack, serving);
  });
}

unattended(
  "a file in place of the active link is reported with exit code 1 and not changed",
  async ({ stack, link }) => {
    const serving = await servingColor(stack);
    await rm(link);
    await writeFile(link, "# mine\n");
    const run = await stack.deploy();
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, `${link} is not a readable symbolic link`);
    assert.is(await readFile(link, "utf8"), "# mine\n");
    await rm(link);
    await replaceLink(link, `${serving}-upstream.conf`);
    await assertServes(stack, serving);
  },
);

unattended("a read-only state folder is reported by its path, and nothing changes", async ({ stack }) => {
  const serving = await servingColor(stack);
  const { stateDir } = stack;
  await $({ quiet: true })`mount --bind ${stateDir} ${stateDir} && mount -o remount,ro,bind ${stateDir}`;
  try {
    const run = await stack.deploy();
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, `Cannot use the state folder ${stateDir}`);
    assert.match(run.stderr, "EROFS");
  } finally {
    await $`umount ${stateDir}`.quiet();
  }
  await assertServes(stack, serving);
});

unattended("containers have no privileges that they do not need", async ({ stack }) => {
  const api = `api-${await servingColor(stack)}`;
  for (const name of ["nginx", "auth", api].map((part) => `${stack.project}-${part}`)) {
    const template =
      "{{json .HostConfig.SecurityOpt}} {{json .HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}}";
    assert.is(await stack.field(name, template), '["no-new-privileges:true"] ["ALL"] true');
  }
  const { stdout } = await stack.docker(
    "exec",
    `${stack.project}-${api}`,
    "sh",
    "-c",
    "echo x > /srv/x || echo refused",
  );
  assert.match(stdout, "refused");
});

unattended("other users cannot write to the tool's files", async ({ stack }) => {
  assert.is((await stat(stack.stateDir)).mode & 0o777, 0o700);
  for (const file of [
    stack.stateFile,
    join(stack.stateDir, "lock"),
    join(stack.stateDir, "blue-green.log"),
  ]) {
    assert.is((await stat(file)).mode & 0o022, 0, file);
  }
});
unattended.run();
