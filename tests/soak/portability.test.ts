import { execFile, execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import { type Run, startRun, type Verb, waitForLock } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { LockedError } from "../../lib/errors.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { ROOT } from "../../lib/settings.ts";
import { type EngineProxy, proxyEngine } from "../engine-proxy.ts";
import { suite } from "../suite.ts";

/** The utilities of POSIX that a run, or what it starts, may expect. No flock, no lsof, no bash, no GNU extras. */
const POSIX =
  "awk basename cat chmod cp cut date df dirname echo env expr false find grep head id kill ln ls mkdir mv pwd rm sed sh sleep sort tail tee test touch tr true uname wc xargs";

interface Profile {
  name: string;
  /** The name of its folder. Short, because the path of a socket must not be longer than 107 bytes. */
  short: string;
  hasProc: boolean;
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
    short: "macos",
    hasProc: false,
    fill: async (bin, folder) => {
      for (const name of [...POSIX.split(" "), "perl"]) await link(bin, name);
      await writeCommand(bin, "ps", withProc(folder, which.sync("ps")));
    },
    mounts: (folder) => `/bin/mount --bind /proc '${folder}/proc' && /bin/mount -t tmpfs none /proc`,
    choose: useContext,
  },
  {
    name: "BusyBox for every tool and for /bin/sh",
    short: "busybox",
    hasProc: true,
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

/** A stack whose runs live in a profile. */
interface Host {
  /** With the settings of these runs. */
  stack: Scratch;
  /** Where the profile keeps its files. */
  folder: string;
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

/** Lets the runs of a stack live in a profile, which keeps its files in a folder of the stack. */
async function createHost(shared: Scratch, { short, fill, mounts, choose }: Profile): Promise<Host> {
  const folder = join(shared.folder, short);
  const bin = join(folder, "bin");
  await mkdir(bin, { recursive: true });
  await mkdir(join(folder, "proc"));
  await fill(bin, folder);
  await link(bin, "node", process.execPath);
  // While the file `hang` exists, this command hangs silently before it reloads nginx, for a minute at most.
  const docker = `#!/bin/sh
case "$*" in *"kill -HUP 1"*) [ ! -e '${folder}/hang' ] || : >'${folder}/hanging'
  n=0; while [ -e '${folder}/hang' ] && [ $((n += 1)) -le 300 ]; do sleep 0.2; done;; esac
exec ${which.sync("docker")} "$@"
`;
  await writeFile(join(bin, "docker"), docker, { mode: 0o755 });
  const proxy = await proxyEngine(join(folder, "engine.sock"));
  const [environment, useDefault] = await choose(proxy.host, folder);
  const stack = { ...shared, env: { ...shared.env, ...environment, PATH: bin } };
  // exec keeps the pid, so a signal reaches the run itself.
  const hide = "/bin/mount --bind /dev/null /var/run/docker.sock";
  const enter = `${hide} && ${mounts(folder)} && exec "$@"`;
  const launcher = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", enter, "sh"];
  const start: Host["start"] = (verb, env = {}) => startRun(stack, verb, env, launcher);
  return {
    stack,
    folder,
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

/** The profiles release on one stack, one after the other. */
const portability = suite<{ stack: Scratch; hosts: Host[] }>("portability");
if (isPossible) {
  portability.before(async (context) => {
    context.stack = await createReleasedScratch("portability");
    context.hosts = [];
    for (const profile of PROFILES) context.hosts.push(await createHost(context.stack, profile));
  });
  portability.after(async ({ stack, hosts }) => {
    await stack.remove();
    for (const { proxy } of hosts) proxy.close();
  });
} else {
  portability.skip("needs root, unshare and busybox", () => undefined);
}

/** Adds a test of the runs in a profile. */
function inProfile(profile: Profile, name: string, act: (host: Host) => Promise<void>): void {
  portability(`${profile.name}: ${name}`, async ({ hosts }) => {
    await act(hosts[PROFILES.indexOf(profile)] as Host);
  });
}

for (const profile of isPossible ? PROFILES : []) {
  inProfile(
    profile,
    "a release begins once the last command of a killed one has ended, and repairs what that one left; other runs are refused meanwhile, in the profile and outside",
    async ({ stack, folder, start, status }) => {
      await writeFile(join(folder, "hang"), "");
      const killed = start("deploy");
      await waitFor("the switch hangs", async () => existsSync(join(folder, "hanging")), 120);
      killed.kill("SIGKILL");
      await killed.ended;

      const logged = await readFile(join(stack.stateDir, "blue-green.log"), "utf8");
      const since = Date.now();
      const next = start("deploy", { VERIFY_SECONDS: "4" });
      const waits = async () =>
        (await readFile(join(stack.stateDir, "blue-green.log"), "utf8"))
          .slice(logged.length)
          .includes("waiting for its last command to end");
      await waitFor("the next run waits", waits, 60);
      await rm(join(folder, "hang"));
      await waitForLock(stack, since);
      const second = await start("deploy").ended;
      assert.is(second.exitCode, 4, second.output);
      assert.match(second.output, /Another run holds the lock: the deploy with pid \d+/);
      const outside = takeLock(join(stack.stateDir, "lock"), "rollback", assert.unreachable);
      const refusal = await outside.catch((error: unknown) => error);
      assert.ok(refusal instanceof LockedError, String(refusal));
      assert.match(await status().catch((error) => error.stdout), "a deploy is in progress");
      const { exitCode, output } = await next.ended;
      assert.is(exitCode, 0, output);
      assert.match(output, "was killed; waiting for its last command to end");
      assert.match(output, "was killed before it finished: repairing what it left");
      assert.match(output, "switch nginx back to blue");
      assert.match(output, "Released blue → green");
      assert.equal([(await stack.get()).color, await stack.running()], ["green", ["green"]]);
    },
  );

  inProfile(
    profile,
    "rolls back, and shows the status; every docker command goes to the engine that was chosen",
    async ({ stack, proxy, finish, start, status, useDefault }) => {
      assert.match(await finish("rollback"), "Rolled back green → blue"); // there is no engine at the default socket
      assert.equal([(await stack.get()).color, await stack.running()], ["blue", ["blue"]]);
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

  if (profile.hasProc) continue; // as any other run: port.test.ts

  inProfile(profile, "a port in use is an error, whoever uses it", async (host) => {
    assert.is(await holderOf(host), "an unknown process (install lsof to see which)");
  });

  inProfile(
    profile,
    "lsof names the holder of a port, and a port that can be bound may be in use",
    async (host) => {
      const answer = "p501\\ncGoogle Chrome He\\nf21\\np502\\ncother\\nf3\\n";
      const options = '"-nP -iTCP:"*" -sTCP:LISTEN -F pc"';
      await writeCommand(host.bin, "lsof", `case "$*" in ${options}) printf '${answer}';; *) exit 1;; esac`);
      // Each program may bind the port on another address.
      const bind = join(host.folder, "bind.mjs");
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
  if (!real) {
    portability.skip("lsof and ps know what /proc would: needs lsof", () => undefined);
    continue;
  }
  inProfile(profile, "lsof and ps know what /proc would", async ({ stack, folder, bin, launcher }) => {
    await rm(join(bin, "lsof"), { force: true });
    await writeCommand(bin, "lsof", withProc(folder, real));
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const file = join(folder, "held");
    await writeFile(file, "");
    const script = `
      import { spawn } from "node:child_process";
      import { openSync } from "node:fs";
      import { hasOpen, inheritorsOf, listenerByLsof, parentOf } from ${JSON.stringify(join(ROOT, "lib/run/process.ts"))};
      const file = ${JSON.stringify(file)};
      const command = spawn("sleep", ["60"], { stdio: ["ignore", "ignore", "ignore", openSync(file, "r")] });
      const pids = [process.pid, command.pid, process.ppid];
      console.log(JSON.stringify({
        open: await Promise.all(pids.map((pid) => hasOpen(pid, file))),
        inherited: (await inheritorsOf(file)).map((pid) => pids.indexOf(pid)),
        parent: pids.indexOf(await parentOf(command.pid)),
        listener: await listenerByLsof(${port}),
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
    server.close();
    const { listener, ...processes } = JSON.parse(stdout);
    assert.equal(processes, { open: [true, true, false], inherited: [1], parent: 0 });
    assert.match(listener, `(pid ${process.pid})`);
  });
}
portability.run();
