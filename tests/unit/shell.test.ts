import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { ROOT } from "../../lib/settings.ts";

const lint = (...files: string[]) =>
  spawnSync("shellcheck", ["--shell", "sh", ...files], { cwd: ROOT, encoding: "utf8" });

// macOS has bash 3.2, BusyBox systems may have none: whatever an owner runs there is POSIX sh.
const check = which.sync("shellcheck", { nothrow: true }) ? test : test.skip;

check("the shell scripts are POSIX sh", () => {
  const { status, stdout, stderr } = lint("scripts/setup.sh", ".ci/run");
  assert.is(status, 0, stdout + stderr);
});

check("the check rejects what only a newer bash knows", async () => {
  const folder = await tempFolder("shell");
  const script = join(folder, "new.sh");
  for (const line of [
    'declare -A map\necho "$map"',
    "mapfile -t lines\necho $lines",
    "coproc cat",
    "echo a |& cat",
  ]) {
    await writeFile(script, `${line}\n`);
    assert.is(lint(script).status, 1, line);
  }
});
test.run();
