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

/** Returns an environment in which a run reads this text from /proc/meminfo. */
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
  "a release warns before it builds if API_MEMORY is too small for the serving color",
  async ({ stack }) => {
    const small = await stack.deploy(["--dry-run"], { API_MEMORY: "8m" });
    assert.is(small.exitCode, 0, small.stdall);
    assert.match(
      small.stderr,
      /the active \S+-api-blue holds \d\d+ MiB of memory; API_MEMORY is 8m, .* raise API_MEMORY/,
    );
    const done = small.stdout.split("\n").map((line) => line.replace(/^\S+ /, ""));
    const [check, build] = ["✓ check the memory of blue", "would build green"].map((text) =>
      done.findIndex((line) => line.startsWith(text)),
    );
    assert.ok(check !== undefined && build !== undefined && check >= 0 && check < build, small.stdout);
    const unlimited = await stack.deploy(["--dry-run"], { API_MEMORY: "0" });
    assert.not.match(unlimited.stderr, "API_MEMORY");
  },
);

memory("a release does not start a second color that does not fit into memory", async ({ stack }) => {
  const before = await stack.field(`${stack.project}-api-green`, "{{.Id}} {{.State.StartedAt}}");
  const little = await withMeminfo(stack, "MemTotal: 4000000 kB\nMemAvailable: 2000 kB\nSwapFree: 1000 kB\n");
  const run = await stack.deploy([], little);
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "Not enough memory for a second color: 3 MiB free, swap included");
  assert.match(run.stderr, /The active \S+-api-blue holds \d\d+ MiB; green would need about as much/);
  assert.match(run.stderr, "Nothing was started");
  assert.not.match(run.stderr, "API_MEMORY"); // the default is enough
  assert.is(await stack.field(`${stack.project}-api-green`, "{{.Id}} {{.State.StartedAt}}"), before);
  assert.equal([(await stack.get()).color, await stack.running()], ["blue", ["blue"]]);
});

memory(
  "a rollback warns and continues, because the color that it leaves may use the memory",
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

memory(
  "swap counts as free memory; if the free memory is unknown, a run reports that and continues",
  async ({ stack }) => {
    const swap = await withMeminfo(stack, "MemAvailable: 2000 kB\nSwapFree: 4000000 kB\n");
    const first = await stack.rollback([], swap);
    assert.is(first.exitCode, 0, first.stdall);
    const back = await stack.rollback([], await withMeminfo(stack, "MemFree: 1 kB\n"));
    assert.is(back.exitCode, 0, back.stdall);
    assert.match(back.stdout, "free memory for a second color is unknown");
  },
);
memory.run();
