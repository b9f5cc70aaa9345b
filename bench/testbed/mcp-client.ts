import * as v2 from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Agent } from "undici";
import { z } from "zod";

/**
 * The official TypeScript clients by what they speak: `1.x` is `@modelcontextprotocol/sdk`; `2.x` is
 * `@modelcontextprotocol/client` as it is by default, which begins with `initialize` like 1.x; `stateless` is the same client
 * with revision 2026-07-28, which has neither `initialize` nor sessions.
 */
export const GENERATIONS = ["1.x", "2.x", "stateless"] as const;
export type Generation = (typeof GENERATIONS)[number];

export interface Progress {
  progress: number;
  total?: number | undefined;
}

/** What the tests use of a connected client, whatever its generation. */
export interface McpClient {
  server: string | undefined;
  /** The revision of the protocol, such as `2025-11-25`. */
  revision: string | undefined;
  /** The id of its session, if the server assigned one. */
  sessionId: string | undefined;
  listTools(): Promise<string[]>;
  /** Calls a tool and returns the text of its result. Throws if the result is an error or anything else. */
  callTool(
    name: string,
    args?: Record<string, unknown>,
    onProgress?: (progress: Progress) => void,
  ): Promise<string>;
  /** Ends the session with a DELETE, if there is one, and closes the client. Throws if the DELETE fails. */
  close(): Promise<void>;
}

export interface ConnectOptions {
  generation?: Generation;
  /** Whether it opens the listening stream (`GET /mcp`), as the clients do when there is a session. Default: true. */
  listen?: boolean;
  /** Gets every error that the client reports: those of its streams, and also those with which its calls are rejected. */
  onError?: (error: Error) => void;
}

const INFO = { name: "release-test", version: "1.0.0" };
const IDLE_MS = 3000;
/** A call without a response by then has failed. The clients' own limit is 60 s. */
const CALL_TIMEOUT_MS = 20_000;

const ToolResult = z.object({
  isError: z.literal(false).optional(),
  content: z.tuple([z.object({ type: z.literal("text"), text: z.string() })]),
});

/** An error with its HTTP status and its cause, which the clients' messages lack. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, status = code } = error as { code?: unknown; status?: unknown };
  return `${error}${typeof status === "number" ? ` (${status})` : ""}${error.cause ? `: ${error.cause}` : ""}`;
}

/**
 * A fetch with its own connections, as on its own machine. It closes idle ones sooner than by default; otherwise each release
 * would wait nine seconds for the last of them.
 */
function createFetch(listen: boolean): (to: string | URL, init?: object) => Promise<Response> {
  const agent = new Agent({ keepAliveMaxTimeout: IDLE_MS });
  return async (to, init = {}) => {
    // This is what a server without listening streams responds. The clients have no setting for it.
    if (!listen && "method" in init && init.method === "GET") return new Response(null, { status: 405 });
    // Node's fetch accepts this agent, but its types are from another version of undici.
    return fetch(to, { ...init, dispatcher: agent } as unknown as RequestInit);
  };
}

/** Connects a client to `${url}/mcp`. With a handshake, this initializes a session and opens its listening stream. */
export async function connectClient(
  url: string,
  { generation = "1.x", listen = true, onError = () => {} }: ConnectOptions = {},
): Promise<McpClient> {
  const endpoint = new URL(`${url}/mcp`);
  const options = { fetch: createFetch(listen) };
  // Closing a client aborts its listening stream, which it reports as an error.
  let closing = false;
  const onerror = (error: Error): void => {
    if (!closing) onError(error);
  };
  const end = async (
    transport: { terminateSession(): Promise<void> },
    client: { close(): Promise<void> },
  ) => {
    closing = true;
    await transport.terminateSession().finally(() => client.close());
  };
  const limit = (onprogress?: (progress: Progress) => void) => ({
    timeout: CALL_TIMEOUT_MS,
    ...(onprogress ? { onprogress } : {}),
  });
  const textOf = (result: unknown): string => ToolResult.parse(result).content[0].text;

  if (generation === "1.x") {
    const client = Object.assign(new Client(INFO), { onerror });
    const transport = new StreamableHTTPClientTransport(endpoint, options);
    // With exactOptionalPropertyTypes, the SDK's class does not match its own interface because of `sessionId`.
    await client.connect(transport as Parameters<Client["connect"]>[0]);
    return {
      server: client.getServerVersion()?.name,
      revision: transport.protocolVersion,
      sessionId: transport.sessionId,
      listTools: async () => (await client.listTools(undefined, limit())).tools.map(({ name }) => name),
      callTool: async (name, args = {}, onProgress) =>
        textOf(await client.callTool({ name, arguments: args }, undefined, limit(onProgress))),
      close: () => end(transport, client),
    };
  }
  const versionNegotiation = generation === "stateless" ? { mode: { pin: "2026-07-28" } } : {};
  const client = Object.assign(new v2.Client(INFO, { versionNegotiation }), { onerror });
  const transport = new v2.StreamableHTTPClientTransport(endpoint, options);
  await client.connect(transport);
  return {
    server: client.getServerVersion()?.name,
    revision: client.getNegotiatedProtocolVersion(),
    sessionId: transport.sessionId,
    listTools: async () => (await client.listTools(undefined, limit())).tools.map(({ name }) => name),
    callTool: async (name, args = {}, onProgress) =>
      textOf(await client.callTool({ name, arguments: args }, limit(onProgress))),
    close: () => end(transport, client),
  };
}
