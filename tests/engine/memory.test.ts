import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as assert from "uvu/assert";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";

const memory = suite<{ stack: Scratch }>("memory");
memory.before(async (context) => {
  context.stack = await createReleasedScratch("memory", {});
});
memory.after(({ stack }) => stack.remove());

/** The environment in which a run is told this by the kernel. */
async function withMeminfo({ folder }: Scratch, meminfo: string): Promise<Record<string, string>> {
  const file = join(folder, "meminfo.mjs");
  await writeFile(
    file,
    `import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
const { readFile } = fs;
fs.readFile = async (path, ...rest) => path === "/proc/meminfo" ? ${JSON.stringify(meminfo)} : readFile(path, ...rest);
syncBuiltinESMExports();
`,
  );
  return { NODE_OPTIONS: `--import ${pathToFileURL(file)}` };
}

memory(
  "a release warns, before it builds, of an API_MEMORY that is too small for what serves",
  async ({ stack }) => {
    const small = await stack.deploy(["--dry-run"], { API_MEMORY: "8m" });
    assert.is(small.exitCode, 0, small.stdall);
    assert.match(
      small.stderr,
      /the active \S+-api-blue holds \d\d+ MiB of memory; API_MEMORY is 8m, .* raise API_MEMORY/,
    );
    const done = small.stdout.split("\n").map((line) => line.replace(/^\S+ /, ""));
    const [look, build] = ["✓ check the memory of blue", "would build green"].map((text) =>
      done.findIndex((line) => line.startsWith(text)),
    );
    assert.ok(look !== undefined && build !== undefined && look >= 0 && look < build, small.stdout);
    for (const API_MEMORY of ["1g", "0"])
      assert.not.match((await stack.deploy(["--dry-run"], { API_MEMORY })).stderr, "API_MEMORY");
  },
);

memory("a second color that does not fit is not started by a release", async ({ stack }) => {
  const before = await stack.field(`${stack.project}-api-green`, "{{.Id}} {{.State.StartedAt}}");
  const little = await withMeminfo(stack, "MemTotal: 4000000 kB\nMemAvailable: 2000 kB\nSwapFree: 1000 kB\n");
  const run = await stack.deploy([], little);
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "Not enough memory for a second color: 3 MiB free, swap included");
  assert.match(run.stderr, /The active \S+-api-blue holds \d\d+ MiB; green would need about as much/);
  assert.match(run.stderr, "Nothing was started");
  assert.is(await stack.field(`${stack.project}-api-green`, "{{.Id}} {{.State.StartedAt}}"), before);
  assert.equal([(await stack.get()).color, await stack.running()], ["blue", ["blue"]]);
});

memory(
  "a rollback goes on, with a warning: what it leaves may be what holds the memory",
  async ({ stack }) => {
    const little = await withMeminfo(stack, "MemAvailable: 2000 kB\nSwapFree: 1000 kB\n");
    const run = await stack.rollback([], little);
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stderr,
      /Not enough memory for a second color: 3 MiB free.* Continuing, because this is a rollback/,
    );
    assert.is((await stack.get()).color, "green");
  },
);

memory("swap counts, and where the kernel does not tell, it says so and goes on", async ({ stack }) => {
  const swap = await withMeminfo(stack, "MemAvailable: 2000 kB\nSwapFree: 4000000 kB\n");
  const there = await stack.rollback([], swap);
  assert.is(there.exitCode, 0, there.stdall);
  const back = await stack.rollback([], await withMeminfo(stack, "MemFree: 1 kB\n"));
  assert.is(back.exitCode, 0, back.stdall);
  assert.match(back.stdout, "free memory for a second color is unknown");
});
memory.run();
