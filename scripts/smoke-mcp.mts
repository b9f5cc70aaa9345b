#!/usr/bin/env -S npx tsx
import { AuthorizationNeededError, EXIT, McpError, ToolError } from "../lib/errors.ts";
import { findProblem, readCalls, type ToolCall } from "../lib/mcp/calls.ts";
import { type Server, useServer } from "../lib/mcp/client.ts";
import { excerptWithout } from "../lib/mcp/excerpt.ts";
import { listPrevious } from "../lib/mcp/previous.ts";
import { throwProblems } from "../lib/mcp/problems.ts";
import { parseSmokeOptions, type SmokeOptions } from "../lib/mcp/smoke-options.ts";
import { compareTools, describeTools, incompatibilities } from "../lib/mcp/tools.ts";
import { createLog } from "../lib/run/log.ts";

const HELP = `Usage: npx tsx scripts/smoke-mcp.mts [options]

Tests the MCP server of a new color: connects, lists its tools, calls some of them, and compares the tools with
those of the serving color. For servers of every MCP revision, with or without sessions. It closes the sessions it opens.

  --url URL           the new color, such as http://127.0.0.1:8085. Default: LOOP_URL
  --previous-url URL  the serving color, to compare with. Default: LOOP_PREVIOUS_URL; none: nothing is compared
  --path PATH         the path of the MCP server at both. Default: /mcp
  --calls FILE        tools to call, as JSON: [{ "tool": "search", "arguments": { "query": "a" }, "expect": "b" }].
                      The result must not be an error, and must contain the text of "expect", if there is one
  --allow-removed     pass although tools or arguments were removed, or arguments are now required
  --seconds N         the limit of each step: connecting, listing all tools, each call. Default: 20
  -h, --help          print this help

Token:      LOOP_TOKEN, sent as bearer token to the two servers only. Without it, a server that requires a token to connect
            or to list its tools passes without being tested
Exit codes: 0 passed · 1 failed · 2 wrong option or file`;

const log = createLog();
const say = (line: string): void => console.log(line);
// The client prints names of tools itself, unescaped.
for (const method of ["debug", "warn"] as const) console[method] = (message) => log.warn(String(message));

async function callTools(
  server: Server,
  calls: readonly ToolCall[],
  options: SmokeOptions,
): Promise<string[]> {
  const excerpt = excerptWithout(options.token);
  const problems: string[] = [];
  for (const call of calls) {
    const problem = await server.callTool(call).then(
      (result) => findProblem(call, result, excerpt),
      (error: unknown) => (error as Error).message,
    );
    const line = `call of ${excerpt(call.tool)}: ${problem ?? "passed"}`;
    if (problem === undefined) say(line);
    else problems.push(line);
  }
  return problems;
}

/** Most clients begin with `initialize`, although the server offers a newer revision. Returns what is wrong. */
async function testOlder(options: SmokeOptions): Promise<string[]> {
  try {
    await useServer(options.endpoint, { ...options, initialize: true }, log.warn, async (server) => {
      const tools = await server.listTools();
      say(`${server.description}: tools: ${tools.length}`);
    });
    return [];
  } catch (error) {
    if (!(error instanceof McpError)) throw error;
    return [`clients that begin with initialize: ${error.message}`];
  }
}

async function main(options: SmokeOptions): Promise<void> {
  const excerpt = excerptWithout(options.token);
  const calls = options.calls === undefined ? [] : await readCalls(options.calls);
  await useServer(options.endpoint, options, log.warn, async (server) => {
    say(server.description);
    const tools = await server.listTools();
    const before = await listPrevious(options.previous, options, log.warn);
    const comparison = before && compareTools(before, tools);
    say(describeTools(tools, comparison, excerpt));

    const incompatible = comparison ? incompatibilities(comparison, excerpt) : [];
    if (options.allowRemoved) for (const line of incompatible) say(`allowed: ${line}`);
    throwProblems([
      ...(options.allowRemoved ? [] : incompatible),
      ...(server.initializesToo ? await testOlder(options) : []),
      ...(await callTools(server, calls, options)),
    ]);
  });
}

try {
  const options = parseSmokeOptions(process.argv.slice(2), process.env);
  if (options === "help") say(HELP);
  else await main(options);
} catch (error) {
  if (error instanceof AuthorizationNeededError) say(`up, not inspected: ${error.message}. ${error.next}`);
  else {
    log.failure(error);
    process.exitCode = error instanceof ToolError ? error.exitCode : EXIT.failed;
  }
}
