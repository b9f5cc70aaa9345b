/**
 * An MCP server with sessions in memory, on the official TypeScript SDK. A session exists only in the process that created it,
 * so another color answers its calls with 404.
 *
 * LOOP_FAULT=sick-after=N, for tests: /health reports "unhealthy" from N seconds after the start.
 */
import { randomUUID } from "node:crypto";
import { access, constants } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

const SERVER_VERSION = "1.0.0";
const COLOR = process.env.LOOP_COLOR ?? "none";
const VAULT = process.env.VAULT_PATH ?? "/vault";
const SICK_AFTER = Number(
  process.env.LOOP_FAULT?.match(/^sick-after=(\d+)$/)?.[1] ?? Number.POSITIVE_INFINITY,
);

// Clients may leave without a DELETE. The limits keep what they leave from filling the memory.
const MOST_SESSIONS = 10_000;
const IDLE_SESSION_MS = 3_600_000;
/** On SIGTERM, open calls have this long to end, within Compose's stop_grace_period of 30 s. */
const GRACE_MS = 25_000;

interface Session {
  transport: StreamableHTTPServerTransport;
  lastUsed: number;
}
const sessions = new Map<string, Session>();

/** The server of one session. Its counter is what a client loses with the session. */
function createSessionServer(): McpServer {
  const server = new McpServer({ name: "session-api", version: SERVER_VERSION });
  const reply = (text: string) => ({ content: [{ type: "text" as const, text: `${COLOR} ${text}` }] });
  let counter = 0;
  server.registerTool(
    "echo",
    { description: "Returns the text", inputSchema: { text: z.string() } },
    ({ text }) => reply(text),
  );
  server.registerTool("count", { description: "Returns how often this session has called it" }, () =>
    reply(String(++counter)),
  );
  server.registerTool(
    "slow",
    { description: "Responds after the given number of seconds", inputSchema: { seconds: z.number() } },
    async ({ seconds }) => {
      await sleep(seconds * 1000);
      return reply(`waited ${seconds} s`);
    },
  );
  return server;
}

/** A transport without a session. It gets one if its first request is `initialize`, and rejects any other with 400. */
async function createTransport(): Promise<StreamableHTTPServerTransport> {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => void sessions.set(id, { transport, lastUsed: Date.now() }),
  });
  transport.onclose = () => sessions.delete(transport.sessionId ?? "");
  // With exactOptionalPropertyTypes, the SDK's class does not match its own interface because of `sessionId`.
  await createSessionServer().connect(transport as Parameters<McpServer["connect"]>[0]);
  return transport;
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

const sendError = (response: ServerResponse, status: number, code: number, message: string): void =>
  sendJson(response, status, { jsonrpc: "2.0", id: null, error: { code, message } });

async function mcp(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const id = request.headers["mcp-session-id"];
  if (id === undefined) {
    if (sessions.size >= MOST_SESSIONS) return sendError(response, 503, -32603, "Too many sessions");
    return (await createTransport()).handleRequest(request, response);
  }
  const session = sessions.get(String(id));
  if (!session) return sendError(response, 404, -32001, "Session not found");
  session.lastUsed = Date.now();
  return session.transport.handleRequest(request, response);
}

async function health(response: ServerResponse): Promise<void> {
  const vaultExists = await access(VAULT, constants.R_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  const healthy = vaultExists && process.uptime() < SICK_AFTER;
  sendJson(response, vaultExists ? 200 : 503, {
    status: healthy ? "healthy" : "unhealthy",
    vault_exists: vaultExists,
    version: SERVER_VERSION,
    color: COLOR,
    sessions: sessions.size,
  });
}

let openCalls = 0;
const http = createServer(async (request, response) => {
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  if (request.method === "POST") {
    openCalls++;
    response.once("close", () => openCalls--);
  }
  try {
    if (pathname === "/health" && request.method === "GET") await health(response);
    else if (pathname === "/mcp") await mcp(request, response);
    else sendJson(response, 404, { error: "not found" });
  } catch (error) {
    console.error(error);
    response.destroy();
  }
});
http.listen(8081);

setInterval(() => {
  for (const { transport, lastUsed } of sessions.values())
    if (Date.now() - lastUsed > IDLE_SESSION_MS) void transport.close();
}, 60_000);

// Calls in progress end first; then the listening streams are closed, which would never end by themselves.
process.once("SIGTERM", async () => {
  http.close(() => process.exit(0));
  setTimeout(() => process.exit(1), GRACE_MS);
  while (openCalls > 0) await sleep(20);
  for (const { transport } of sessions.values()) void transport.close();
  setInterval(() => http.closeIdleConnections(), 20);
});
