import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { $, type ProcessOutput, which } from "zx";
import { startRun, waitForLock } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { readCacheRecords } from "../../lib/docker/build-cache.ts";
import { staleRecords } from "../../lib/release/prune.ts";
import { readHistory } from "../../lib/run/history.ts";
import { ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

/** Blue serves at the start and at the end of each test; green is stopped. */
const unattended = suite<{ stack: Scratch; link: string }>("unattended");
unattended.before(async (context) => {
  context.stack = await createScratch("unattended");
  context.link = join(context.stack.folder, "nginx/active-upstream.conf");
  for (let i = 0; i < 2; i++) {
    const run = await context.stack.deploy();
    assert.is(run.exitCode, 0, run.stdall);
  }
});
unattended.after(({ stack }) => stack.remove());

async function assertBlueServes(stack: Scratch): Promise<void> {
  assert.equal(
    [
      (await stack.get()).status,
      (await stack.get()).color,
      await stack.running(),
      await stack.readStateFile(),
    ],
    [200, "blue", ["blue"], "blue\n"],
  );
}

async function rollBackToBlue(stack: Scratch): Promise<void> {
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  await assertBlueServes(stack);
}

unattended("a second deploy or rollback exits with 4 at once and names the first run", async ({ stack }) => {
  const since = Date.now();
  const first = startRun(stack, "deploy");
  await waitForLock(stack, since);
  for (const second of [await stack.deploy(), await stack.rollback()]) {
    assert.is(second.exitCode, 4, second.stdall);
    assert.match(second.stderr, /Another run holds the lock: the deploy with pid \d+, since \d{4}-/);
  }
  assert.is((await first.ended).exitCode, 0);
  await rollBackToBlue(stack);
});

unattended("with --quiet, stdout has one line and the log file has everything", async ({ stack }) => {
  const run = await stack.rollback(["--quiet"]);
  assert.match(run.stdout, /^\S+Z Rolled back blue → green: \S+ \(sha256:[0-9a-f]+[^)]*\) in [\d.]+ s\n$/);
  assert.is(run.stderr, "");
  const log = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
  assert.match(log, "✓ switch nginx to green");
  assert.match(log, "Rolled back blue → green");
  await rollBackToBlue(stack);
});

unattended("with --quiet, a failure is explained on stderr and stdout stays empty", async ({ stack }) => {
  const run = await stack.deploy(["--quiet"], { LOOP_FAULT: "unhealthy", HEALTH_RETRIES: "2" });
  assert.is(run.exitCode, 1);
  assert.is(run.stdout, "");
  assert.match(run.stderr, "Health check failed, rollback not performed");
  assert.match(
    run.stderr,
    "Undo steps: stop green, restore the previous image of green, remove the failed image.",
  );
  await assertBlueServes(stack);
});

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
      const environment = Object.entries({ ...settings, HOME: stack.folder, PATH: bin, LC_ALL: "C" });
      const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
      const run = await $({ quiet: true, nothrow: true, cwd: "/", stdio: ["ignore", "pipe", "pipe"] })`
      umask 077; exec <&-
      env -i ${environment.map(([name, value]) => `${name}=${value}`)} node --import ${loader} ${join(ROOT, "scripts/deploy-blue-green.mts")} --quiet`;
      assert.is(run.exitCode, 0, run.stdall);
      assert.match(run.stdout, /^\S+Z Released blue → green: .*\n$/);
      assert.is((await stat(stack.stateFile)).mode & 0o777, 0o600);
    } finally {
      if (isFake) await rm("/var/packages", { recursive: true });
    }
    await rollBackToBlue(stack);
  },
);

unattended("if both colors run, --keep serving keeps the serving color", async ({ stack }) => {
  await stack.compose("up", "-d", "loop-api-green");
  const run = await stack.deploy(["--keep", "serving"]);
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, /✓ stop green[\s\S]*✓ build green/);
  await rollBackToBlue(stack);
});

unattended("each run sends a notification; a failed notification changes nothing", async ({ stack }) => {
  const notices: string[] = [];
  const server = createServer(async (request, response) => {
    for await (const chunk of request) notices.push(String(chunk));
    response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const NOTIFY_URL = `http://127.0.0.1:${(server.address() as AddressInfo).port}/?token=very-secret`;
  const failed = await stack.deploy(["--verbose"], {
    NOTIFY_URL,
    LOOP_FAULT: "unhealthy",
    HEALTH_RETRIES: "1",
  });
  const done = await stack.rollback([], { NOTIFY_URL });
  server.close();
  const unnotified = await stack.rollback([], { NOTIFY_URL });
  assert.equal([failed.exitCode, done.exitCode, unnotified.exitCode], [1, 0, 0], unnotified.stdall);
  assert.match(unnotified.stderr, "Warning: NOTIFY_URL was not reached: ECONNREFUSED");
  const [first, second] = notices.map((notice) => JSON.parse(notice));
  assert.equal([first.result, first.exitCode, first.from, first.to], ["HealthError", 1, "blue", "green"]);
  assert.equal([second.result, second.verb, second.from, second.to], ["done", "rollback", "blue", "green"]);
  assert.ok(second.seconds > 1);
  const log = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
  for (const text of [failed.stdall, done.stdall, unnotified.stdall, log])
    assert.not.match(text, "very-secret");
  await assertBlueServes(stack);
});

/** Creates a docker command in which some cases behave differently. Returns it as a setting. */
async function fakeDocker(stack: Scratch, name: string, cases: string): Promise<{ DOCKER_CMD: string }> {
  const file = join(stack.folder, name);
  await writeFile(file, `#!/bin/sh\ncase "$*" in\n${cases}\nesac\nexec docker "$@"\n`);
  await chmod(file, 0o755);
  return { DOCKER_CMD: file };
}

unattended(
  "a hanging daemon fails the run after 30 s; an exec that hangs during the switch fails it as well",
  async (context) => {
    const { stack, link } = context;
    const hangingDaemon = await fakeDocker(stack, "docker-hung", '"version "*) sleep 300 ;;');
    const since = performance.now();
    const daemon = await stack.deploy([], hangingDaemon);
    assert.is(daemon.exitCode, 1);
    assert.match(daemon.stderr, "did not end within 30 s");
    assert.match(daemon.stderr, "Next: Check that Docker works");
    assert.ok(performance.now() - since < 40_000);
    await assertBlueServes(stack);

    const hangingExec = await fakeDocker(stack, "docker-hung-exec", '"exec "*"kill -HUP 1"*) sleep 300 ;;');
    const exec = await stack.rollback([], hangingExec);
    assert.is(exec.exitCode, 3, exec.stdall);
    assert.match(exec.stderr, "Nginx reload failed, manual intervention required");
    assert.match(exec.stderr, "did not end within 40 s");
    assert.is(
      await readFile(link, "utf8"),
      await readFile(join(stack.folder, "nginx/blue-upstream.conf"), "utf8"),
    );
    assert.is((await stack.get()).color, "blue");
    await stack.docker("stop", `${stack.project}-api-green`);
  },
);

unattended("too little disk space is reported before anything is changed", async (context) => {
  const { stack } = context;
  const small = join(stack.folder, "small");
  await mkdir(small);
  await $({ quiet: true })`mount -t tmpfs -o size=1m tmpfs ${small}`;
  try {
    const run = await stack.deploy(
      [],
      await fakeDocker(stack, "docker-small", `"info "*) echo '${small}'; exit ;;`),
    );
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, `Not enough disk space to build: 0.0 GiB free in ${small}`);
    assert.match(run.stderr, /The last image took 0\.[1-9] GiB/);
    assert.not.match(run.stdout, "build green");
  } finally {
    await $`umount ${small}`.quiet();
  }
  await assertBlueServes(stack);
});

unattended(
  "releases with changing content leave no images behind and do not touch those of other projects",
  async ({ stack }) => {
    const dangling = async (label: string) =>
      (
        await stack.docker("images", "-q", "--filter", "dangling=true", "--filter", `label=${label}`)
      ).stdout.trim();
    const otherProject = join(stack.folder, "other-project");
    await mkdir(otherProject);
    const label = `loop-test-other=${stack.project}`;
    for (const text of ["one", "two"]) {
      await writeFile(
        join(otherProject, "Dockerfile"),
        `FROM debian:trixie-slim\nLABEL ${label}\nRUN echo ${text} > /x\n`,
      );
      await stack.docker("build", "-q", "-t", `${stack.project}-other`, otherProject);
    }
    const unique = Date.now(); // a repeated test run must not find these builds in the cache
    for (let i = 0; i < 5; i++) {
      const bad = i === 1 ? { LOOP_FAULT: "unhealthy", HEALTH_RETRIES: "1" } : {};
      const run = await stack.deploy([], { ...(await stack.apiVersion(`9.${i}.${unique}`)), ...bad });
      assert.is(run.exitCode, i === 1 ? 1 : 0, run.stdall);
    }
    const cache = await stack.docker("system", "df", "--verbose", "--format", "{{json .BuildCache}}");
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
    assert.is(await dangling(`com.docker.compose.project=${stack.project}`), "");
    assert.ok(await dangling(label), "the other project's old image is gone");
    await stack.docker("rmi", "--force", `${stack.project}-other`, await dangling(label));
    if ((await stack.get()).color === "green") await rollBackToBlue(stack);
    await assertBlueServes(stack);
  },
);

const REJECTED: [
  what: string,
  code: number,
  message: string | RegExp,
  setUp: (s: Scratch) => Promise<Record<string, string>>,
][] = [
  [
    "an empty color record",
    1,
    'says ""',
    async ({ stateDir }) => writeFile(join(stateDir, "active-color"), "").then(() => ({})),
  ],
  [
    "a state folder whose parent does not exist",
    1,
    "Cannot use the state folder /proc/none/state",
    async () => ({ STATE_DIR: "/proc/none/state" }),
  ],
  [
    "two equal ports",
    2,
    "BLUE_PORT and GREEN_PORT are both 8085",
    async () => ({ BLUE_PORT: "8085", GREEN_PORT: "8085" }),
  ],
  [
    "a port out of range",
    2,
    'NGINX_PORT is "70000": it must be a port',
    async () => ({ NGINX_PORT: "70000" }),
  ],
  ["an invalid number of seconds", 2, 'DRAIN_SECONDS is "soon"', async () => ({ DRAIN_SECONDS: "soon" })],
];
for (const [what, code, message, setUp] of REJECTED) {
  unattended(`${what} is reported with exit code ${code}, and nothing changes`, async ({ stack }) => {
    for (const run of ["deploy", "rollback"] as const) {
      const { exitCode, stderr } = await stack[run]([], await setUp(stack));
      assert.is(exitCode, code, stderr);
      assert.match(stderr, message);
      assert.match(stderr, "Next: ");
    }
    await writeFile(join(stack.stateDir, "active-color"), "blue\n");
    await assertBlueServes(stack);
  });
}

unattended("an invalid compose file makes a deploy exit with 2, but not a rollback", async ({ stack }) => {
  await writeFile(join(stack.folder, "broken.yml"), "services: [\n");
  const broken = { COMPOSE_FILE: join(stack.folder, "broken.yml") };
  const deploy = await stack.deploy([], broken);
  assert.is(deploy.exitCode, 2, deploy.stdall);
  assert.match(deploy.stderr, /Compose cannot read .*broken.yml[\s\S]*yaml/);
  await assertBlueServes(stack);
  const rollback = await stack.rollback([], { ...broken, LOOP_API_CONTEXT: "/no/such/source" });
  assert.is(rollback.exitCode, 0, rollback.stdall);
  await rollBackToBlue(stack);
});

unattended(
  "a file in place of the active link is reported with exit code 1 and not changed",
  async ({ stack, link }) => {
    await rm(link);
    await writeFile(link, "# mine\n");
    const run = await stack.deploy();
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, `${link} is not a readable symbolic link`);
    assert.is(await readFile(link, "utf8"), "# mine\n");
    await rm(link);
    await replaceLink(link, "blue-upstream.conf");
    await assertBlueServes(stack);
  },
);

unattended(
  "an active link that is missing, dangling or points at another file is corrected",
  async ({ stack, link }) => {
    await writeFile(join(stack.folder, "nginx/third.conf"), "");
    for (const target of [undefined, "nowhere.conf", "third.conf"]) {
      await rm(link);
      if (target) await symlink(target, link);
      const run: ProcessOutput = await stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") }); // fails later: no Dockerfile
      assert.is(run.exitCode, 1);
      if (target)
        assert.match(run.stderr, `the active link points at ${target}, but nginx serves blue: correcting it`);
      assert.match(await readFile(link, "utf8"), "loop_api_blue");
      await assertBlueServes(stack);
    }
  },
);

unattended("a read-only state folder is reported by its path, and nothing changes", async ({ stack }) => {
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
  await assertBlueServes(stack);
});

unattended("with a read-only vault, a rollback works but cannot write the state file", async ({ stack }) => {
  const vault = dirname(dirname(stack.stateFile));
  await $({ quiet: true })`mount --bind ${vault} ${vault} && mount -o remount,ro,bind ${vault}`;
  try {
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, `the state file ${stack.stateFile} was not written: EROFS`);
    assert.equal([(await stack.get()).color, await stack.readStateFile()], ["green", "blue\n"]);
  } finally {
    await $`umount ${vault}`.quiet();
  }
  await rollBackToBlue(stack);
});

unattended("a closed output pipe, as with `| head -1`, does not leave a run half done", async ({ stack }) => {
  const run = startRun(stack, "rollback");
  await run.waitForSteps(1);
  run.closeOutput();
  assert.is((await run.ended).exitCode, 0);
  assert.equal(await stack.running(), ["green"]);
  await rollBackToBlue(stack);
});

unattended("containers have no privileges that they do not need", async ({ stack }) => {
  for (const name of ["nginx", "auth", "api-blue"].map((part) => `${stack.project}-${part}`)) {
    const template =
      "{{json .HostConfig.SecurityOpt}} {{json .HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}}";
    assert.is(await stack.field(name, template), '["no-new-privileges:true"] ["ALL"] true');
  }
  const { stdout } = await stack.docker(
    "exec",
    `${stack.project}-api-blue`,
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

const unusualNames = suite("unusual names");
unusualNames(
  "deploy and rollback work in a folder whose name has spaces, quotes, $(…), a newline and non-ASCII letters",
  async () => {
    const stack = await createScratch("odd", 'it\'s $(touch pwned) `id` "ü"\nfolder');
    try {
      for (const run of [await stack.deploy(), await stack.deploy(), await stack.rollback()]) {
        assert.is(run.exitCode, 0, run.stdall);
      }
      assert.equal([await stack.running(), (await stack.get()).color], [["green"], "green"]);
      assert.not(existsSync(join(stack.folder, "pwned")));
    } finally {
      await stack.remove();
    }
  },
);
unusualNames.run();
