import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, readdir, readFile, realpath, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { confined } from "../../lib/util/confined.ts";

/** Replaces the folder with a link to `outside` and back in a tight loop, as root in a container could. */
function startExchanging(folder: string, outside: string): ChildProcess {
  const script = `
    const { renameSync, rmSync, symlinkSync } = require("node:fs");
    const [folder, outside] = ${JSON.stringify([folder, outside])};
    const attempt = (act) => { try { act(); } catch {} };
    symlinkSync(outside, folder + ".link");
    for (;;) {
      attempt(() => renameSync(folder, folder + ".real"));
      attempt(() => renameSync(folder + ".link", folder));
      attempt(() => renameSync(folder, folder + ".link"));
      attempt(() => rmSync(folder, { recursive: true }));
      attempt(() => renameSync(folder + ".real", folder));
    }`;
  return spawn(process.execPath, ["-e", script], { stdio: "inherit" });
}

test("nothing outside is touched while the folder is constantly replaced with a link", async () => {
  const top = await realpath(await tempFolder("confined"));
  const [vault, outside] = [join(top, "vault"), join(top, "outside")];
  const folder = join(vault, "a/_build");
  for (const path of [folder, outside]) await mkdir(path, { recursive: true });
  await writeFile(join(outside, "state"), "outside");
  const attacker = startExchanging(folder, outside);
  const before = process.cwd();
  const results: Record<string, number> = {};
  const attempt = (): string => {
    try {
      return confined(folder, [vault], true, (here) => {
        here.replace("state", "inside");
        return String(here.read("state", 100));
      });
    } catch {
      return "refused";
    }
  };
  for (const until = performance.now() + 3000; performance.now() < until; ) {
    const result = attempt();
    results[result] = (results[result] ?? 0) + 1;
  }
  attacker.kill("SIGKILL");
  assert.is(process.cwd(), before);
  assert.ok(
    (results.inside ?? 0) > 10 && (results.refused ?? 0) > 10,
    `there was no race: ${JSON.stringify(results)}`,
  );
  assert.is(results.outside, undefined);
  assert.equal(await readdir(outside), ["state"]);
  assert.is(await readFile(join(outside, "state"), "utf8"), "outside");
});
test.run();
