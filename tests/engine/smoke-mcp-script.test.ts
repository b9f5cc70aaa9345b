import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { answersOf, serve, serveSessions, serveStateless, stateless, tool } from "../mcp-servers.ts";

interface Run {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Runs scripts/smoke-mcp.mts as a release does. The servers are in this process, so it must not block. */
const smoke = (env: Record<string, string>, ...args: string[]): Promise<Run> =>
  new Promise((resolve) => {
    const [command, ...rest] = scriptCommand("smoke-mcp");
    execFile(command, [...rest, ...args], { env }, (error, stdout, stderr) =>
      resolve({ exitCode: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });

const folder = await tempFolder("smoke");
const callsFile = async (name: string, calls: unknown): Promise<string> => {
  const path = join(folder, name);
  await writeFile(path, JSON.stringify(calls));
  return path;
};
const serving = await serveSessions([tool("search", { text: "3 notes" }, "query"), tool("move_note")]);
const next = await serveStateless(
  answersOf([
    tool("search", { text: "3 notes" }, "query", "limit"),
    tool("search_notes"),
    tool("fail", { text: "out of luck", isError: true }),
  ]),
);
test.after(async () => {
  serving.close();
  next.close();
  await rm(folder, { recursive: true });
});

test("the tools are compared with those of the serving color, which keeps no session", async () => {
  const env = { LOOP_URL: next.url, LOOP_PREVIOUS_URL: serving.url };
  const [failed, allowed] = await Promise.all([smoke(env), smoke(env, "--allow-removed")]);
  assert.is(failed.exitCode, 1);
  assert.match(
    failed.stdout,
    "stateless 3.2.1, revision 2026-07-28\ntools: 3 (+ search_notes, + fail, − move_note)\n",
  );
  assert.match(failed.stderr, "The MCP smoke test failed");
  assert.match(failed.stderr, "move_note: the tool was removed");
  assert.match(failed.stderr, "search: the argument limit is now required");
  assert.is(allowed.exitCode, 0, allowed.stderr);
  assert.match(allowed.stdout, "allowed: move_note: the tool was removed");
  assert.match(allowed.stdout, "allowed: search: the argument limit is now required");
  assert.is(allowed.stderr, "");
  assert.is(serving.sessions.size, 0);
});

test("a serving color that cannot be listed is not compared, and nothing is claimed", async () => {
  const broken = await serve((_, response) => response.writeHead(500).end());
  const env = { LOOP_URL: serving.url, LOOP_PREVIOUS_URL: broken.url };
  const { exitCode, stdout, stderr } = await smoke(env);
  broken.close();
  assert.is(exitCode, 0);
  assert.is(stdout, "sessions 1.2.3, revision 2025-11-25\ntools: 2\n");
  assert.match(stderr, /Warning: not compared with the serving color: .*HTTP 500/);
});

test("tools are called, and each call that fails is reported", async () => {
  const search = { tool: "search", arguments: { query: "a", limit: "1" }, expect: "3 notes" };
  const good = await callsFile("good.json", [search]);
  const bad = await callsFile("bad.json", [{ ...search, expect: "4 notes" }, { tool: "fail" }, search]);
  const env = { LOOP_URL: next.url };
  const [passed, failed] = await Promise.all([smoke(env, "--calls", good), smoke(env, "--calls", bad)]);
  assert.is(passed.exitCode, 0, passed.stderr);
  assert.match(passed.stdout, "call of search: passed\n");
  assert.is(failed.exitCode, 1);
  assert.match(failed.stderr, 'call of search: the result does not contain "4 notes": 3 notes');
  assert.match(failed.stderr, "call of fail: the result is an error: out of luck");
  assert.match(failed.stdout, "call of search: passed");
});

test("a server that asks for a token is up; the token is sent and never printed", async () => {
  const server = await serve(({ headers: { authorization } }, response) =>
    authorization
      ? response.writeHead(500).end(`no ${authorization}`)
      : response.writeHead(401, { "www-authenticate": 'Bearer realm="loop"' }).end(),
  );
  const env = { LOOP_URL: server.url };
  const [without, failing] = await Promise.all([smoke(env), smoke({ ...env, LOOP_TOKEN: "s3cret" })]);
  server.close();
  assert.is(without.exitCode, 0, without.stderr);
  assert.match(without.stdout, /^up, not inspected: .* requires authorization/);
  assert.is(failing.exitCode, 1);
  assert.match(failing.stderr, "HTTP 500: no Bearer [LOOP_TOKEN]");
  assert.not.match(failing.stdout + failing.stderr, "s3cret");
});

test("a call that needs a token fails, although the list does not need one", async () => {
  const answer = answersOf([tool("search")]);
  const server = await serve((request, response) => {
    if (request.headers["mcp-method"] === "tools/call")
      return void response.writeHead(401, { "www-authenticate": "Bearer" }).end();
    stateless(answer)(request, response);
  });
  const calls = await callsFile("token.json", [{ tool: "search" }]);
  const { exitCode, stderr } = await smoke({ LOOP_URL: server.url }, "--calls", calls);
  server.close();
  assert.is(exitCode, 1);
  assert.match(stderr, /call of search: .* requires authorization/);
});

test("a server that offers older revisions too must answer initialize", async () => {
  const both = { supportedVersions: ["2026-07-28", "2025-11-25"] };
  const server = await serveStateless((message) => {
    if (message.method === "initialize") return undefined;
    return { ...answersOf([])(message), ...(message.method === "server/discover" ? both : {}) };
  });
  const { exitCode, stderr } = await smoke({ LOOP_URL: server.url });
  server.close();
  assert.is(exitCode, 1);
  assert.match(stderr, /clients that begin with initialize: .* failed while connecting: HTTP 404/);
});

test("names that the client itself prints are escaped", async () => {
  const odd = tool("a\u001b[2J", {
    inputSchema: { type: "object", properties: { a: { type: "string", "x-mcp-header": "" } } },
  });
  const server = await serveStateless(answersOf([odd]));
  const { stdout, stderr } = await smoke({ LOOP_URL: server.url });
  server.close();
  assert.match(stdout, "tools: 0");
  assert.match(stderr, "a\\x1b[2J");
});

test("a wrong option and a wrong file exit with 2, and --help with 0", async () => {
  const bad = await callsFile("typo.json", [{ tol: "search" }]);
  const [option, file, help] = await Promise.all([
    smoke({ LOOP_URL: next.url }, "--al"),
    smoke({ LOOP_URL: next.url }, "--calls", bad),
    smoke({}, "--help"),
  ]);
  assert.equal([option.exitCode, file.exitCode, help.exitCode], [2, 2, 0]);
  assert.match(option.stderr, "--al");
  assert.match(file.stderr, '"tol"');
  assert.match(help.stdout, "Usage: npx tsx scripts/smoke-mcp.mts");
});
test.run();
