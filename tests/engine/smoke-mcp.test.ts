import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $, type ProcessOutput } from "zx";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { suite } from "../suite.ts";

const smoke = suite<{ stack: Scratch; green: string; blue: string }>("MCP smoke test of the example API");
smoke.before(async (context) => {
  context.stack = await createScratch("smoke-mcp");
  context.green = `http://127.0.0.1:${context.stack.env.GREEN_PORT}`;
  context.blue = `http://127.0.0.1:${context.stack.env.BLUE_PORT}`;
  const run = await context.stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
});
smoke.after(({ stack }) => stack.remove());

// With a socket as standard input, bash believes it is a remote shell, and what ~/.bashrc prints would be in stderr.
const stdio: ["ignore", "pipe", "pipe"] = ["ignore", "pipe", "pipe"];
const test = (env: Record<string, string>, ...args: string[]): Promise<ProcessOutput> =>
  $({ env, quiet: true, nothrow: true, timeout: "60s", stdio })`${[...scriptCommand("smoke-mcp"), ...args]}`;

smoke("both generations of clients are tested, and tools are called", async ({ stack, green }) => {
  const calls = join(stack.folder, "calls.json");
  await writeFile(
    calls,
    JSON.stringify([
      { tool: "echo", arguments: { text: "hello" }, expect: "green hello" },
      { tool: "count", arguments: { n: 3, interval: 0.01 }, expect: "green 6" },
    ]),
  );
  const run = await test({ LOOP_URL: green, LOOP_PREVIOUS_URL: green }, "--calls", calls);
  assert.is(run.exitCode, 0, run.stdall);
  assert.equal(run.stdout.trim().split("\n"), [
    "loop-api 1.0.0, revision 2026-07-28",
    "tools: 3 (none added, none removed)",
    "loop-api 1.0.0, revision 2025-11-25: tools: 3",
    "call of echo: passed",
    "call of count: passed",
  ]);
  assert.is(run.stderr, "");
});

smoke("a call with a wrong argument fails", async ({ stack, green }) => {
  const calls = join(stack.folder, "wrong.json");
  await writeFile(calls, JSON.stringify([{ tool: "slow", arguments: { seconds: "a" } }]));
  const run = await test({ LOOP_URL: green }, "--calls", calls);
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, /call of slow: .*wrong arguments/);
});

smoke("a release that looks healthy, with an MCP server that answers 500, fails", async ({ stack, blue }) => {
  const release = await stack.deploy([], { LOOP_FAULT: "fail=100" });
  assert.is(release.exitCode, 0, release.stdall);
  const run = await test({ LOOP_URL: blue });
  assert.is(run.exitCode, 1, run.stdall);
  assert.is(run.stdout, "");
  assert.match(run.stderr, "failed while connecting: HTTP 500: LOOP_FAULT=fail");
});
smoke.run();
