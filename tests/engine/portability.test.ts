import { execFile, execFileSync } from "node:child_process";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import { type Run, startRun, type Verb, waitForLock } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { ROOT } from "../../lib/settings.ts";
import { type EngineProxy, proxyEngine } from "../engine-proxy.ts";
import { suite } from "../suite.ts";

/** The utilities of POSIX that a run, or what it starts, may expect. No flock, no lsof, no bash, no GNU extras. */
const POSIX =
  "awk basename cat chmod cp cut date df dirname echo env expr false find grep head id kill ln ls mkdir mv pwd rm sed sh sleep sort tail tee test touch tr true uname wc xargs";

interface Profile {
  name: string;
  hasProc: boolean;
  /** What a run says of a program that uses a port. */
  holder: RegExp;
  /** Fills `bin` in a folder, which becomes the whole PATH. */
  fill(bin: string, folder: string): Promise<void>;
  /** Shell commands that run as root in a mount namespace of their own, before the script. */
  mounts(folder: string): string;
  /** The environment in which docker uses the engine at a host, and then one in which it uses the default. */
  choose(host: string, folder: string): Promise<[Record<string, string>, Record<string, string>]>;
}

const link = (bin: string, name: string, target = which.sync(name)): Promise<void> =>
  symlink(target, join(bin, name));

const writeCommand = (bin: string, name: string, script: string): Promise<void> =>
  writeFile(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755, flag: "wx" });

/** A program that sees /proc although the run does not: ps and lsof need it on Linux, and not on macOS. */
const withProc = (folder: string, program: string): string =>
  `exec /usr/bin/unshare --mount /bin/sh -c '/bin/mount --bind ${folder}/proc /proc && exec ${program} "$@"' sh "$@"`;

/** As Docker Desktop and colima do it: a Docker context, made the current one. */
async function useContext(
  host: string,
  folder: string,
): Promise<[Record<string, string>, Record<string, string>]> {
  const env = { DOCKER_CONFIG: join(folder, "docker-config") };
  await mkdir(env.DOCKER_CONFIG);
  // A developer may have Compose there.
  const config = { cliPluginsExtraDirs: [join(homedir(), ".docker/cli-plugins")] };
  await writeFile(join(env.DOCKER_CONFIG, "config.json"), JSON.stringify(config));
  for (const args of [
    ["create", "elsewhere", "--docker", `host=${host}`],
    ["use", "elsewhere"],
  ])
    execFileSync("docker", ["context", ...args], { env: { ...process.env, ...env }, stdio: "ignore" });
  return [env, { DOCKER_CONTEXT: "default" }];
}

const PROFILES: readonly Profile[] = [
  {
    name: "only POSIX tools and perl, no /proc, as on macOS",
    hasProc: false,
    holder: /^an unknown process \(install lsof to see which\)$/,
    fill: async (bin, folder) => {
      for (const name of [...POSIX.split(" "), "perl"]) await link(bin, name);
      await writeCommand(bin, "ps", withProc(folder, which.sync("ps")));
    },
    mounts: (folder) => `/bin/mount --bind /proc '${folder}/proc' && /bin/mount -t tmpfs none /proc`,
    choose: useContext,
  },
  {
    name: "BusyBox for every tool and for /bin/sh",
    hasProc: true,
    holder: new RegExp(`^the process \\S+ \\(pid ${process.pid}\\)$`),
    fill: async (bin) => {
      const busybox = which.sync("busybox");
      const applets = execFileSync(busybox, ["--list"], { encoding: "utf8" }).trim().split("\n");
      for (const applet of applets) await link(bin, applet, busybox);
      // Debian's BusyBox has no flock. Elsewhere it has one without -w.
      const flock = `#!/bin/sh\n[ "$#" = 2 ] && [ "$1" = -n ] || { echo 'Usage: flock -n FD' >&2; exit 1; }\nexec ${which.sync("flock")} -n "$2"\n`;
      await writeFile(join(bin, "flock"), flock, { mode: 0o755 });
    },
    mounts: () => `/bin/mount --bind ${which.sync("busybox")} /bin/sh`,
    choose: async (DOCKER_HOST) => [{ DOCKER_HOST }, { DOCKER_HOST: "" }],
  },
];

/** A scratch stack whose runs live in a profile. */
interface Host {
  stack: Scratch;
  bin: string;
  proxy: EngineProxy;
  /** With these variables docker would use its default socket, which is not there. */
  useDefault: Record<string, string>;
  /** Enters the profile and replaces itself with the command after it. */
  launcher: readonly string[];
  /** Starts a run in the profile. */
  start(verb: Verb, env?: Record<string, string>): Run;
  /** Runs a script in the profile to its end. */
  finish(verb: Verb, env?: Record<string, string>): Promise<string>;
  /** Shows the status in the profile, by default with what \`scriptCommand\` returns. */
  status(command?: readonly string[]): Promise<string>;
}

async function createHost({ fill, mounts, choose }: Profile): Promise<Host> {
  const stack = await createScratch("portability");
  const bin = join(stack.folder, "bin");
  await mkdir(bin);
  await mkdir(join(stack.folder, "proc"));
  await fill(bin, stack.folder);
  await link(bin, "node", process.execPath);
  // With the file `hang`, a build first waits without a word.
  const docker = `#!/bin/sh
case "$*" in *" build "*) [ ! -e '${bin}/hang' ] || sleep 5;; esac
exec ${which.sync("docker")} "$@"
`;
  await writeFile(join(bin, "docker"), docker, { mode: 0o755 });
  const proxy = await proxyEngine(join(stack.folder, "engine.sock"));
  const [environment, useDefault] = await choose(proxy.host, stack.folder);
  Object.assign(stack.env, environment, { PATH: bin });
  // exec keeps the pid, so a signal reaches the run itself.
  const hide = "/bin/mount --bind /dev/null /var/run/docker.sock";
  const enter = `${hide} && ${mounts(stack.folder)} && exec "$@"`;
  const launcher = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", enter, "sh"];
  const start: Host["start"] = (verb, env = {}) => startRun(stack, verb, env, launcher);
  return {
    stack,
    bin,
    proxy,
    useDefault,
    launcher,
    start,
    finish: async (verb, env = {}) => {
      const { exitCode, output } = await start(verb, env).ended;
      assert.is(exitCode, 0, output);
      return output;
    },
    status: async (command = scriptCommand("status")) => {
      const args = [...launcher.slice(1), ...command];
      const { stdout } = await promisify(execFile)(launcher[0] ?? "", args, {
        env: stack.env,
        cwd: stack.folder,
      });
      return stdout;
    },
  };
}

/**
 * Releases a project for the first time while this process uses its nginx port, and returns who the message says uses it. The
 * release ends before it starts anything.
 */
async function holderOf({ stack, start }: Host, env: Record<string, string> = {}): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const [project, folder] = [`${stack.project}-new`, join(stack.folder, "new")];
  await mkdir(join(folder, "vault"), { recursive: true });
  const { exitCode, output } = await start("deploy", {
    COMPOSE_PROJECT_NAME: project,
    NGINX_CONTAINER: `${project}-nginx`,
    NGINX_PORT: String(port),
    VAULT_PATH: join(folder, "vault"),
    ACTIVE_COLOR_FILE: join(folder, "vault/.active-color"),
    STATE_DIR: join(folder, "state"),
    ...env,
  }).ended;
  server.close();
  assert.is(exitCode, 1, output);
  assert.match(output, "Port conflict detected, check running containers");
  assert.match(output, "set NGINX_PORT to a free port, and run this again; nothing was started");
  const [, holder] =
    output.match(new RegExp(`Port ${port}, which ${project}-nginx needs, is held by (.*)\\.$`, "m")) ?? [];
  return holder ?? output;
}

/** A mount namespace needs root and Linux; set-up installs BusyBox. */
const isPossible =
  process.getuid?.() === 0 && ["unshare", "busybox"].every((name) => which.sync(name, { nothrow: true }));
if (!isPossible) {
  const skipped = suite("portability");
  skipped.skip("needs root, unshare and busybox", () => undefined);
  skipped.run();
}

for (const profile of isPossible ? PROFILES : []) {
  const portability = suite<{ host: Host }>(profile.name);
  portability.before(async (context) => {
    context.host = await createHost(profile);
  });
  portability.after(async ({ host }) => {
    await host.stack.remove();
    host.proxy.close();
  });

  portability(
    "releases, and shows the status; every docker command goes to the engine that was chosen",
    async ({ host }) => {
      const { stack, proxy, finish, start, status, useDefault } = host;
      assert.match(await finish("deploy"), "Released blue → green"); // there is no engine at the default socket
      assert.equal([(await stack.get()).color, await stack.running()], ["green", ["green"]]);
      const before = proxy.connections();
      const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
      const sources = [process.execPath, "--import", loader, join(ROOT, "scripts/status.mts")];
      assert.match(await status(sources), "everything agrees");
      assert.ok(proxy.connections() > before);

      const { exitCode, output } = await start("deploy", useDefault).ended;
      assert.is(exitCode, 1, output);
      assert.match(output, /Docker is not reachable[\s\S]*unix:\/\/\/var\/run\/docker\.sock/);
      for (const [name, value] of Object.entries(useDefault))
        assert.is(output.includes(`, or ${name}, which is ${value}.`), value !== "", output);
    },
  );

  portability("a killed release is repaired by the next", async ({ host }) => {
    const { stack, start, finish } = host;
    const killed = start("deploy", { VERIFY_SECONDS: "20" });
    await killed.waitForStep("switch nginx");
    killed.kill("SIGKILL");
    await killed.ended;
    const output = await finish("deploy");
    assert.match(output, "was killed before it finished: repairing what it left");
    assert.match(output, "switch nginx back to green");
    assert.match(output, "Released green → blue");
    assert.equal([(await stack.get()).color, await stack.running()], ["blue", ["blue"]]);
  });

  portability(
    "a rollback begins once the last command of a killed run has ended; a second run is refused meanwhile, in the profile and outside",
    async ({ host }) => {
      const { stack, start, status } = host;
      const hang = join(stack.env.PATH ?? "", "hang");
      await writeFile(hang, "");
      const building = start("deploy");
      await building.waitForStep("check the memory of");
      await sleep(500);
      building.kill("SIGKILL");
      await building.ended;
      await rm(hang);

      const since = Date.now();
      const first = start("rollback", { VERIFY_SECONDS: "6" });
      await waitForLock(stack, since);
      const second = await start("deploy").ended;
      assert.is(second.exitCode, 4, second.output);
      assert.match(second.output, /Another run holds the lock: the rollback with pid \d+/);
      const outside = await stack.rollback([], { PATH: process.env.PATH ?? "" });
      assert.is(outside.exitCode, 4, outside.stdall);
      assert.match(await status().catch((error) => error.stdout), "a rollback is in progress");
      const { exitCode, output } = await first.ended;
      assert.is(exitCode, 0, output);
      assert.match(output, "was killed; waiting for its last command to end");
      assert.match(output, "Rolled back blue → green");
      assert.equal([(await stack.get()).color, await stack.running()], ["green", ["green"]]);
    },
  );

  portability("a port in use is an error, whoever uses it", async ({ host }) => {
    assert.match(await holderOf(host), profile.holder);
  });

  if (profile.hasProc) {
    portability.run();
    continue;
  }

  portability(
    "as on macOS, lsof names the holder of a port, and a port that can be bound may be in use",
    async ({ host }) => {
      const answer = "p501\\ncGoogle Chrome He\\nf21\\np502\\ncother\\nf3\\n";
      const options = '"-nP -iTCP:"*" -sTCP:LISTEN -F pc"';
      await writeCommand(host.bin, "lsof", `case "$*" in ${options}) printf '${answer}';; *) exit 1;; esac`);
      // Each program may bind the port on another address.
      const bind = join(host.stack.folder, "bind.mjs");
      await writeFile(
        bind,
        `import { Server } from "node:net";
const { listen } = Server.prototype;
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, 0, ...rest);
};
`,
      );
      const holder = await holderOf(host, { NODE_OPTIONS: `--import=${bind}` });
      assert.is(holder, "the process Google Chrome He (pid 501)");
    },
  );

  const real = which.sync("lsof", { nothrow: true });
  (real ? portability : portability.skip)(
    "without /proc, lsof and ps know what it would",
    async ({ host }) => {
      const { stack, bin, launcher } = host;
      await rm(join(bin, "lsof"), { force: true });
      await writeCommand(bin, "lsof", withProc(stack.folder, real ?? ""));
      assert.match(await holderOf(host), `(pid ${process.pid})`);

      const file = join(stack.folder, "held");
      await writeFile(file, "");
      const script = `
      import { spawn } from "node:child_process";
      import { openSync } from "node:fs";
      import { hasOpen, inheritorsOf, parentOf } from ${JSON.stringify(join(ROOT, "lib/run/process.ts"))};
      const file = ${JSON.stringify(file)};
      const command = spawn("sleep", ["60"], { stdio: ["ignore", "ignore", "ignore", openSync(file, "r")] });
      const pids = [process.pid, command.pid, process.ppid];
      console.log(JSON.stringify({
        open: await Promise.all(pids.map((pid) => hasOpen(pid, file))),
        inherited: (await inheritorsOf(file)).map((pid) => pids.indexOf(pid)),
        parent: pids.indexOf(await parentOf(command.pid)),
      }));
      command.kill();
    `;
      const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
      const [enter = "", ...args] = [
        ...launcher,
        process.execPath,
        "--import",
        loader,
        "--input-type=module",
        "-e",
        script,
      ];
      const { stdout } = await promisify(execFile)(enter, args, { env: stack.env });
      assert.equal(JSON.parse(stdout), { open: [true, true, false], inherited: [1], parent: 0 });
    },
  );
  portability.run();
}
