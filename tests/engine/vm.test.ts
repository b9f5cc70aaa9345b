import { cp, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { Status } from "../../lib/release/status-report.ts";
import { suite } from "../suite.ts";

const vm = suite<{ stack: Scratch }>("an engine in a VM");
vm.before(async (context) => {
  const stack = await createScratch("vm");
  // Its data folder is not on this host, and it cannot mount what is listed in `unshared`.
  const docker = `#!/bin/sh
if [ "$1" = info ]; then
  echo /var/lib/docker-in-a-vm
  exit
fi
if [ "$1" = run ]; then
  while read -r folder; do
    case "$*" in *"source=$folder"*)
      echo "invalid mount config for type \\"bind\\": bind source path does not exist: $folder" >&2
      exit 125
    esac
  done <'${join(stack.folder, "unshared")}'
fi
exec ${which.sync("docker")} "$@"
`;
  await writeFile(join(stack.folder, "docker"), docker, { mode: 0o755 });
  await writeFile(join(stack.folder, "unshared"), "");
  stack.env.DOCKER_CMD = join(stack.folder, "docker");
  context.stack = stack;
});
vm.after(({ stack }) => stack.remove());

vm("a vault that is not shared with the VM is an error before anything starts", async ({ stack }) => {
  await writeFile(join(stack.folder, "unshared"), `${stack.env.VAULT_PATH}\n`);
  const run = await stack.deploy();
  assert.is(run.exitCode, 2, run.stdall);
  assert.match(run.stderr, "Docker runs in a VM, and not all folders are shared with it");
  assert.match(run.stderr, `bind source path does not exist: ${stack.env.VAULT_PATH}`);
  const { stdout } = await stack.docker(
    "ps",
    "-aq",
    "--filter",
    `label=com.docker.compose.project=${stack.project}`,
  );
  assert.is(stdout, "");
  await writeFile(join(stack.folder, "unshared"), "");
});

vm("a dry run starts no container for the check, and prints it", async ({ stack }) => {
  const run = await stack.deploy(["--dry-run"]);
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, /would check the shared folders\n.*run --rm --network none --mount /);
});

vm("with shared folders a release works, and the free disk space is read in the VM", async ({ stack }) => {
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, "✓ check the shared folders");
  assert.not.match(run.stdout, "is unknown");
  const { freeBytes } = Status.parse(JSON.parse((await stack.status(["--json"])).stdout));
  assert.ok(freeBytes && freeBytes > 2 ** 20, String(freeBytes));
});

/** A mount namespace needs root and Linux. */
const canLag = process.getuid?.() === 0 && which.sync("unshare", { nothrow: true });

(canLag ? vm : vm.skip)(
  "a switch waits until a VM whose file sharing lags shows the new link",
  async ({ stack }) => {
    // The run sees `edited` in the place of nginx's folder, and the engine sees the folder itself.
    const [edited, seen] = [join(stack.folder, "edited"), join(stack.folder, "nginx")];
    await cp(seen, edited, { recursive: true, verbatimSymlinks: true });
    const mount = `/bin/mount --bind '${edited}' '${seen}' && exec "$@"`;
    const launcher = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", mount, "sh"];
    const linkIn = (folder: string) => readlink(join(folder, "active-upstream.conf"));
    const run = startRun(stack, "deploy", {}, launcher);
    let hasEnded = false;
    run.ended.then(() => {
      hasEnded = true;
    });
    while (!hasEnded && (await linkIn(edited)) === (await linkIn(seen))) await sleep(20);
    await sleep(2000);
    await cp(edited, seen, { recursive: true, verbatimSymlinks: true });
    const { exitCode, output } = await run.ended;
    assert.is(exitCode, 0, output);
    assert.is((await stack.get()).color, "blue");
  },
);
vm.run();
