import { spawnSync } from "node:child_process";
import { cp, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

/** What setup.sh uses on a Mac, besides docker and npm. */
const TOOLS = "dirname find grep id mktemp node sed tail touch";

/** macOS's sh is bash 3.2; these are what there is on Linux. */
const SHELLS = [["/bin/sh"], ["bash", "--posix"], ["busybox", "sh"]].filter(([shell = ""]) =>
  which.sync(shell, { nothrow: true }),
);

interface Mac {
  checkout: string;
  bin: string;
  /** Runs setup.sh in each shell, which must all do the same. */
  setUp(argument?: string, env?: Record<string, string>): { status: number | null; output: string };
}

const writeCommand = (bin: string, name: string, script: string): Promise<void> =>
  writeFile(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });

/** A docker whose engine, Compose and images are there, except those of `missing`, a pattern of its arguments. */
const writeDocker = (bin: string, missing = "nothing"): Promise<void> =>
  writeCommand(
    bin,
    "docker",
    `case "$*" in ${missing}) echo "docker says no" >&2; exit 1;; "compose version --short") echo 2.40.3-desktop.1;; esac`,
  );

const mac = suite<Mac>("setup.sh on a Mac");
mac.before.each(async (context) => {
  const folder = await tempFolder("setup");
  const [checkout, bin] = [join(folder, "checkout"), join(folder, "bin")];
  await mkdir(join(checkout, "node_modules"), { recursive: true });
  await mkdir(bin);
  await cp(join(ROOT, "scripts/setup.sh"), join(checkout, "scripts/setup.sh"));
  await writeFile(join(checkout, "package-lock.json"), "{}");
  await writeFile(join(checkout, "node_modules/.package-lock.json"), "{}");
  for (const tool of TOOLS.split(" ")) await symlink(which.sync(tool), join(bin, tool));
  await writeCommand(bin, "uname", "echo Darwin");
  // Not every rm accepts an empty path.
  await writeCommand(bin, "rm", `for path; do [ -n "$path" ] || exit 1; done; exec ${which.sync("rm")} "$@"`);
  await writeDocker(bin);
  const setUp: Mac["setUp"] = (argument = "", env = {}) => {
    const results = SHELLS.map(([shell = "", ...options]) => {
      const { status, stdout, stderr } = spawnSync(
        which.sync(shell),
        [...options, "scripts/setup.sh", ...(argument ? [argument] : [])],
        { cwd: checkout, env: { PATH: bin, ...env }, encoding: "utf8" },
      );
      return { status, output: stdout + stderr };
    });
    const [first = { status: null, output: "" }, ...others] = results;
    for (const other of others) assert.equal(other, first);
    return first;
  };
  Object.assign(context, { checkout, bin, setUp });
});
mac.after.each(({ bin }) => rm(join(bin, ".."), { recursive: true }));

mac("if nothing is missing, it says nothing and leaves nothing", async ({ checkout, setUp }) => {
  assert.equal(setUp(), { status: 0, output: "" });
  assert.equal((await readdir(checkout)).sort(), ["node_modules", "package-lock.json", "scripts"]);
});

mac("without docker, an engine or Compose it says what to do on a Mac", async ({ bin, setUp }) => {
  await writeDocker(bin, '"compose version"*');
  let { status, output } = setUp();
  assert.is(status, 1);
  assert.match(
    output,
    "brew install docker-compose docker-buildx, and add their folder to ~/.docker/config.json",
  );

  await writeDocker(bin, "version*");
  ({ status, output } = setUp());
  assert.is(status, 1);
  assert.match(output, "Open Docker Desktop or run 'colima start'");

  await rm(join(bin, "docker"));
  ({ status, output } = setUp());
  assert.is(status, 1);
  assert.match(output, "'docker' is missing. Install Docker Desktop and open it once, or install colima");
});

mac("an image that cannot be pulled is reported with docker's reason", async ({ bin, setUp }) => {
  await writeDocker(bin, '"image inspect "*|"pull "*');
  const { status, output } = setUp();
  assert.is(status, 1);
  assert.match(output, "cannot pull debian:trixie-slim: docker says no");
});

mac("the engine is the one of DOCKER_HOST, from the settings file too", async ({ checkout, bin, setUp }) => {
  await writeDocker(bin, "version*");
  await writeFile(join(checkout, ".env.blue-green"), "DOCKER_HOST=unix:///of/the/file\n");
  assert.match(setUp().output, "the Docker Engine at DOCKER_HOST=unix:///of/the/file does not respond");
  const environment = setUp("", { DOCKER_HOST: "unix:///other" });
  assert.match(environment.output, "the Docker Engine at DOCKER_HOST=unix:///other does not respond");

  await writeDocker(bin, 'version*) [ -n "$DOCKER_HOST" ] || exit 1;; nothing');
  assert.equal(setUp(), { status: 0, output: "" });
});

mac("before tests, it suggests only what Homebrew has for a Mac", async ({ setUp }) => {
  const { status, output } = setUp("test");
  assert.is(status, 0, output);
  assert.match(output, "to run them: brew install shellcheck python3\n");
});
mac.run();
