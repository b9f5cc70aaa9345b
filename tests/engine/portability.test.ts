import { execFile, execFileSync } from "node:child_process";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import { type Run, startRun, type Verb, waitForLock } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

/** The utilities of POSIX that a run, or what it starts, may expect. No flock, no lsof, no bash, no GNU extras. */
const POSIX =
  "awk basename cat chmod cp cut date df dirname echo env expr false find grep head id kill ln ls mkdir mv ps pwd rm sed sh sleep sort tail tee test touch tr true uname wc xargs";

interface Profile {
  name: string;
  /** Fills a folder that becomes the whole PATH. */
  fill(bin: string): Promise<void>;
  /** Shell commands that run as root in a mount namespace of their own, before the script. */
  mounts: string;
}

const link = (bin: string, name: string, target = which.sync(name)): Promise<void> =>
  symlink(target, join(bin, name));

const PROFILES: readonly Profile[] = [
  {
    name: "only POSIX tools and perl, no /proc, as on macOS",
    fill: async (bin) => {
      for (const name of [...POSIX.split(" "), "perl"]) await link(bin, name);
    },
    mounts: "/bin/mount -t tmpfs none /proc",
  },
  {
    name: "BusyBox for every tool and for /bin/sh",
    fill: async (bin) => {
      const busybox = which.sync("busybox");
      const applets = execFileSync(busybox, ["--list"], { encoding: "utf8" }).trim().split("\n");
      for (const applet of applets) await link(bin, applet, busybox);
      // Debian's BusyBox has no flock. Elsewhere it has one without -w.
      const flock = `#!/bin/sh\n[ "$#" = 2 ] && [ "$1" = -n ] || { echo 'Usage: flock -n FD' >&2; exit 1; }\nexec ${which.sync("flock")} -n "$2"\n`;
      await writeFile(join(bin, "flock"), flock, { mode: 0o755 });
    },
    mounts: `/bin/mount --bind ${which.sync("busybox", { nothrow: true }) ?? "/missing"} /bin/sh`,
  },
];

/** A scratch stack whose runs live in a profile. */
interface Host {
  stack: Scratch;
  /** Starts a run in the profile. */
  start(verb: Verb, env?: Record<string, string>): Run;
  /** Runs a script in the profile to its end. */
  finish(verb: Verb, env?: Record<string, string>): Promise<string>;
  status(): Promise<string>;
}

async function createHost({ fill, mounts }: Profile): Promise<Host> {
  const stack = await createScratch("portability");
  const bin = join(stack.folder, "bin");
  await mkdir(bin);
  await fill(bin);
  await link(bin, "node", process.execPath);
  // With the file `hang`, a build first waits without a word.
  const docker = `#!/bin/sh
case "$*" in *" build "*) [ ! -e '${bin}/hang' ] || sleep 5;; esac
exec ${which.sync("docker")} "$@"
`;
  await writeFile(join(bin, "docker"), docker, { mode: 0o755 });
  stack.env.PATH = bin;
  // exec keeps the pid, so a signal reaches the run itself.
  const launcher = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", `${mounts} && exec "$@"`, "sh"];
  const start: Host["start"] = (verb, env = {}) => startRun(stack, verb, env, launcher);
  return {
    stack,
    start,
    finish: async (verb, env = {}) => {
      const { exitCode, output } = await start(verb, env).ended;
      assert.is(exitCode, 0, output);
      return output;
    },
    status: async () => {
      const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
      const args = [
        ...launcher.slice(1),
        process.execPath,
        "--import",
        loader,
        join(ROOT, "scripts/status.mts"),
      ];
      const { stdout } = await promisify(execFile)(launcher[0] ?? "", args, {
        env: stack.env,
        cwd: stack.folder,
      });
      return stdout;
    },
  };
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
  portability.after(({ host }) => host.stack.remove());

  portability("releases, rolls back and shows the status", async ({ host }) => {
    const { stack, finish, status } = host;
    assert.match(await finish("deploy"), "Released blue → green");
    assert.match(await finish("deploy"), "Released green → blue");
    assert.match(await finish("rollback"), "Rolled back blue → green");
    assert.equal([(await stack.get()).color, await stack.running()], ["green", ["green"]]);
    assert.match(await status(), "everything agrees");
  });

  portability("a second run is refused while the first holds the lock, on either side", async ({ host }) => {
    const { stack, start, status } = host;
    const since = Date.now();
    const first = start("deploy", { VERIFY_SECONDS: "6" });
    await waitForLock(stack, since);
    const second = await start("rollback").ended;
    assert.is(second.exitCode, 4, second.output);
    assert.match(second.output, /Another run holds the lock: the deploy with pid \d+/);
    const outside = await stack.rollback([], { PATH: process.env.PATH ?? "" });
    assert.is(outside.exitCode, 4, outside.stdall);
    assert.match(await status().catch((error) => error.stdout), "a deploy is in progress");
    assert.is((await first.ended).exitCode, 0);
  });

  portability("a killed run is repaired by the next, once its last command has ended", async ({ host }) => {
    const { stack, start, finish } = host;
    const before = (await stack.get()).color;
    const killed = start("deploy", { VERIFY_SECONDS: "20" });
    await killed.waitForStep("switch nginx");
    killed.kill("SIGKILL");
    await killed.ended;
    const output = await finish("deploy");
    assert.match(output, "was killed before it finished: repairing what it left");
    assert.match(output, `switch nginx back to ${before}`);

    const hang = join(stack.env.PATH ?? "", "hang");
    await writeFile(hang, "");
    const building = start("deploy");
    await building.waitForStep("check the memory of");
    await sleep(500);
    building.kill("SIGKILL");
    await building.ended;
    await rm(hang);
    assert.match(await finish("rollback"), "was killed; waiting for its last command to end");
    assert.is((await stack.get()).status, 200);
  });

  portability("a port in use is an error, whoever uses it", async ({ host }) => {
    const { stack, start } = host;
    const idle = (await stack.get()).color === "blue" ? "GREEN_PORT" : "BLUE_PORT";
    const { createServer } = await import("node:net");
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    const { exitCode, output } = await start("deploy", { [idle]: String(port) }).ended;
    server.close();
    assert.is(exitCode, 1, output);
    assert.match(
      output,
      /Port \d+, which .* needs, is held by (the process|a process that this user cannot see)/,
    );
  });
  portability.run();
}
