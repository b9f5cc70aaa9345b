import type { RequestListener } from "node:http";
import { json } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { McpError } from "../../lib/errors.ts";
import { type Access, type Server, useServer } from "../../lib/mcp/client.ts";
import {
  answersOf,
  type Listening,
  serve,
  serveSessions,
  serveStateless,
  stateless,
  tool,
} from "../mcp-servers.ts";

const SECONDS = 10;
const TOOLS = [tool("search", { text: "hello" }, "query"), tool("move"), tool("broken", { isError: true })];

/** Uses a server, and closes it. Returns what `use` returns, or the McpError. */
async function using<T>(
  { url, close }: Listening,
  use: (server: Server) => Promise<T>,
  access: Partial<Access> = {},
): Promise<{ result?: T; error?: McpError; warnings: string[] }> {
  const warnings: string[] = [];
  try {
    const warn = (message: string) => void warnings.push(message);
    return {
      result: await useServer(new URL(`${url}/mcp`), { seconds: SECONDS, ...access }, warn, use),
      warnings,
    };
  } catch (error) {
    if (!(error instanceof McpError)) throw error;
    return { error, warnings };
  } finally {
    close();
  }
}

const names = async (server: Server): Promise<string[]> => (await server.listTools()).map(({ name }) => name);

test("a server with sessions: all pages of tools, and no session is left", async () => {
  const server = await serveSessions(TOOLS);
  const { result, warnings } = await using(server, async (connected) => {
    assert.is(connected.description, "sessions 1.2.3, revision 2025-11-25");
    assert.is(connected.initializesToo, false);
    assert.is(server.sessions.size, 1);
    await connected.callTool({ tool: "search", arguments: { query: "a" } });
    return names(connected);
  });
  assert.equal(result, ["search", "move", "broken"]);
  assert.is(server.sessions.size, 0);
  assert.equal(warnings, []);
});

test("a stateless server", async () => {
  const { result } = await using(await serveStateless(answersOf(TOOLS)), async (connected) => {
    assert.is(connected.description, "stateless 3.2.1, revision 2026-07-28");
    assert.is(connected.initializesToo, false);
    return [await names(connected), await connected.callTool({ tool: "search", arguments: {} })];
  });
  assert.equal(result?.[0], ["search", "move", "broken"]);
  assert.match(JSON.stringify(result?.[1]), "hello");
});

test("a session ends also when the test fails", async () => {
  const server = await serveSessions(TOOLS);
  const { error } = await using(server, async () => {
    throw new McpError("wrong", { next: "" });
  });
  assert.is(error?.message, "wrong");
  assert.is(server.sessions.size, 0);
});

/** A server that assigns a session, has no tools, and answers these statuses. `methods` gets those of all requests. */
const serveHandshake = (initialized: number, ended: number, methods: string[] = []): Promise<Listening> =>
  serve(async (request, response) => {
    const { method, id } =
      request.method === "DELETE"
        ? { method: "DELETE" }
        : ((await json(request)) as { method: string; id?: number });
    methods.push(method);
    const result = {
      protocolVersion: "2025-11-25",
      capabilities: {},
      serverInfo: { name: "s", version: "1" },
    };
    const headers = { "content-type": "application/json", "mcp-session-id": "7" };
    if (method === "initialize")
      response.writeHead(200, headers).end(JSON.stringify({ jsonrpc: "2.0", id, result }));
    else if (method === "DELETE") response.writeHead(ended).end();
    else response.writeHead(method === "notifications/initialized" ? initialized : 404).end();
  });

test("a session ends also when the connection fails right after it was created", async () => {
  const methods: string[] = [];
  const { error } = await using(await serveHandshake(500, 200, methods), names);
  assert.match(error?.message ?? "", "failed while connecting: HTTP 500");
  assert.equal(methods, ["server/discover", "initialize", "notifications/initialized", "DELETE"]);
});

test("a session that cannot be ended is a warning, unless the server does not allow it", async () => {
  const { result, warnings } = await using(await serveHandshake(202, 500), names);
  assert.equal(result, []);
  assert.match(warnings.join("\n"), /the session at .* was not ended: HTTP 500/);
  assert.equal((await using(await serveHandshake(202, 405), names)).warnings, []);
});

test("a server without tools has none", async () => {
  const answer = answersOf([]);
  const server = await serveStateless((message) => {
    const result = answer(message);
    return message.method === "server/discover" ? { ...result, capabilities: {} } : result;
  });
  assert.equal((await using(server, names)).result, []);
});

test("a server that also offers older revisions says so, and is then asked for initialize", async () => {
  const discover = { supportedVersions: ["2026-07-28", "2025-11-25"] };
  const serveBoth = () =>
    serveStateless((message) => {
      const result = answersOf(TOOLS)(message);
      return message.method === "server/discover" ? { ...result, ...discover } : result;
    });
  assert.is((await using(await serveBoth(), async (server) => server.initializesToo)).result, true);
  const { error } = await using(await serveBoth(), names, { initialize: true });
  assert.match(error?.message ?? "", "failed while connecting: HTTP 404");
});

const answering =
  (status: number, type: string, body: string): RequestListener =>
  (_, response) =>
    response.writeHead(status, { "content-type": type }).end(body);

const FAILURES: [name: string, listener: RequestListener, message: string][] = [
  [
    "500 on every request",
    answering(500, "text/plain", "out of\u001b[2J luck"),
    "HTTP 500: out of\\x1b[2J luck",
  ],
  ["an HTML page", answering(200, "text/html", "<html>"), "text/html"],
  ["no JSON", answering(200, "application/json", "{nope"), "JSON"],
  ["no MCP at this path", answering(404, "text/plain", "none"), "HTTP 404: none"],
  ["no response", () => undefined, "did not answer within 0.5 s while connecting"],
  ["a closed connection", (request) => request.socket.destroy(), "other side closed"],
];
for (const [name, listener, message] of FAILURES) {
  test(`fails: ${name}`, async () => {
    const { error } = await using(
      await serve(listener),
      names,
      name === "no response" ? { seconds: 0.5 } : {},
    );
    assert.match(error?.message ?? "", message);
  });
}

test("fails: a stream of garbage, within the limit of bytes", async () => {
  const server = await serve((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    const timer = setInterval(() => response.write(`data: ${"x".repeat(2 ** 20)}`), 1);
    response.on("close", () => clearInterval(timer));
  });
  assert.match((await using(server, names)).error?.message ?? "", "sent more than 16 MiB");
});

test("fails: pages without an end, by number and by time", async () => {
  const answer = answersOf(TOOLS);
  let pages = 0;
  const endless = await serveStateless((message) => ({
    ...answer(message),
    ...(message.method === "tools/list" ? { nextCursor: String(++pages) } : {}),
  }));
  assert.match((await using(endless, names)).error?.message ?? "", "exceeded listMaxPages (64)");
  assert.is(pages, 64);

  const slow = await serveStateless(async (message) => {
    if (message.method === "tools/list") await sleep(500);
    return {
      ...answer(message),
      ...(message.method === "tools/list" ? { nextCursor: String(++pages) } : {}),
    };
  });
  const { error } = await using(slow, names, { seconds: 2 });
  assert.match(error?.message ?? "", "did not answer within 2 s while listing its tools");
});

test("the token is sent to the server, and not to the one that it redirects to", async () => {
  const tokens: { here: unknown[]; there: unknown[] } = { here: [], there: [] };
  const there = await serve((request, response) => {
    tokens.there.push(request.headers.authorization);
    stateless(answersOf(TOOLS))(request, response);
  });
  const here = await serve((request, response) => {
    tokens.here.push(request.headers.authorization);
    response.writeHead(307, { location: there.url }).end();
  });
  const { error } = await using(here, names, { token: "s3cret" });
  there.close();
  assert.match(error?.message ?? "", "not followed");
  assert.equal(tokens.there, []);
  assert.ok(tokens.here.length);
  assert.ok(tokens.here.every((token) => token === "Bearer s3cret"));
});

test("no error contains the token", async () => {
  const echo: RequestListener = (request, response) =>
    response.writeHead(500).end(`${"x".repeat(280)}${request.headers.authorization}`);
  const { error } = await using(await serve(echo), names, { token: "s3cret" });
  assert.match(error?.message ?? "", "HTTP 500: xxx");
  assert.not.match(error?.message ?? "", "s3c");
});
test.run();
