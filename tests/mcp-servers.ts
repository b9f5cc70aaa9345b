import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CallToolRequestSchema, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

/** A server on a free port of this machine. */
export interface Listening {
  url: string;
  close(): void;
}

/** Starts an HTTP server. */
export async function serve(listener: RequestListener): Promise<Listening> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A tool, and the text that it returns. */
export interface FakeTool {
  name: string;
  inputSchema: { type: "object"; [key: string]: unknown };
  text?: string;
  isError?: boolean;
}

/** A tool with these string arguments. */
export const tool = (name: string, rest: Partial<FakeTool> = {}, ...required: string[]): FakeTool => ({
  name,
  inputSchema: {
    type: "object",
    properties: Object.fromEntries(required.map((argument) => [argument, { type: "string" }])),
    required,
  },
  ...rest,
});

const resultOf = ({ text = "", isError = false }: Partial<FakeTool>) => ({
  content: [{ type: "text" as const, text }],
  isError,
});

/** A server of the official SDK 1.x: `initialize`, sessions in memory, one tool per page. `sessions` are the open ones. */
export async function serveSessions(tools: FakeTool[]): Promise<Listening & { sessions: Set<string> }> {
  const transports = new Map<string, StreamableHTTPServerTransport>();
  const sessions = new Set<string>();
  const connect = async (): Promise<StreamableHTTPServerTransport> => {
    const server = new Server({ name: "sessions", version: "1.2.3" }, { capabilities: { tools: {} } });
    server.setRequestHandler(ListToolsRequestSchema, ({ params }) => {
      const at = Number(params?.cursor ?? 0);
      const nextCursor = at + 1 < tools.length ? { nextCursor: String(at + 1) } : {};
      return {
        tools: tools.slice(at, at + 1).map(({ name, inputSchema }) => ({ name, inputSchema })),
        ...nextCursor,
      };
    });
    server.setRequestHandler(CallToolRequestSchema, ({ params }) =>
      resultOf(tools.find(({ name }) => name === params.name) ?? { text: "no such tool", isError: true }),
    );
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => {
        transports.set(id, transport);
        sessions.add(id);
      },
      onsessionclosed: (id) => void sessions.delete(id),
    });
    // With exactOptionalPropertyTypes, the SDK's class does not match its own interface because of `sessionId`.
    await server.connect(transport as Parameters<Server["connect"]>[0]);
    return transport;
  };
  const listening = await serve(async (request, response) => {
    const known = transports.get(String(request.headers["mcp-session-id"]));
    await (known ?? (await connect())).handleRequest(request, response);
  });
  return { ...listening, sessions };
}

/** A JSON-RPC request. */
interface Message {
  id?: number | string;
  method: string;
  params?: { name?: string; cursor?: string };
}

/** What a stateless server answers besides the fields that every result has. */
export type Answer = (message: Message) => Fields | undefined | Promise<Fields | undefined>;
type Fields = Record<string, unknown>;

/** The answers of a server with these tools. */
export const answersOf =
  (tools: FakeTool[]) =>
  ({ method, params }: Message): Fields | undefined => {
    switch (method) {
      case "server/discover":
        return {
          supportedVersions: ["2026-07-28"],
          capabilities: { tools: {} },
          ttlMs: 0,
          cacheScope: "public",
        };
      case "tools/list":
        return {
          tools: tools.map(({ name, inputSchema }) => ({ name, inputSchema })),
          ttlMs: 0,
          cacheScope: "public",
        };
      case "tools/call":
        return resultOf(tools.find(({ name }) => name === params?.name) ?? { isError: true });
      default:
        return undefined;
    }
  };

/** A listener of revision 2026-07-28, with neither `initialize` nor sessions. */
export const stateless =
  (answer: Answer): RequestListener =>
  async (request, response) => {
    const message = (await json(request)) as Message;
    const fields = await answer(message);
    const _meta = { "io.modelcontextprotocol/serverInfo": { name: "stateless", version: "3.2.1" } };
    const outcome = fields
      ? { result: { ...fields, resultType: "complete", _meta } }
      : { error: { code: -32601, message: "unknown method" } };
    response
      .writeHead(fields ? 200 : 404, { "content-type": "application/json" })
      .end(JSON.stringify({ jsonrpc: "2.0", id: message.id, ...outcome }));
  };

/** Starts a server of revision 2026-07-28. */
export const serveStateless = (answer: Answer): Promise<Listening> => serve(stateless(answer));
