import { Client, SdkHttpError, StreamableHTTPClientTransport, type Tool } from "@modelcontextprotocol/client";
import { McpError, ToolError } from "../errors.ts";
import type { ToolCall } from "./calls.ts";
import { type Excerpt, excerptWithout } from "./excerpt.ts";
import { createGuardedFetch } from "./guarded-fetch.ts";

/** Pages of tools; a server with more has probably lost its way. */
const MOST_PAGES = 64;

/** Revisions are dates. */
const FIRST_WITHOUT_INITIALIZE = "2026-07-28";

/** How to reach a server. */
export interface Access {
  /** The limit of each step: connecting, listing all tools, one call, ending the session. */
  seconds: number;
  /** Sent as bearer token. */
  token?: string;
  /** Begin with `initialize`, as clients of revisions up to 2025-11-25 do, instead of negotiating. */
  initialize?: boolean;
}

/** A connected server. Each function throws McpError. */
export interface Server {
  /** Such as `loop-api 1.0.0, revision 2025-11-25`; safe to print. */
  description: string;
  /** It has given the client a session id. */
  keepsSession: boolean;
  /** Besides the revision in use, it offers older ones, whose clients begin with `initialize`. */
  initializesToo: boolean;
  /** All pages. Empty for a server without tools. */
  listTools(): Promise<Tool[]>;
  /** Returns the result as the server sent it. Throws also when it does not match the tool's output schema. */
  callTool(call: ToolCall): Promise<unknown>;
}

function innermost(error: Error): Error {
  return error.cause instanceof Error ? innermost(error.cause) : error;
}

/** What the client reports, with the status and the cause that its messages lack. */
function describeError(error: unknown, excerpt: Excerpt): string {
  if (!(error instanceof Error)) return excerpt(String(error));
  if (SdkHttpError.isInstance(error) && error.data.status >= 400) {
    const { status, text } = error.data;
    return excerpt(`HTTP ${status}${text ? `: ${text}` : ""}`);
  }
  const cause = innermost(error);
  // An address with several IP addresses fails with an error that has a code and no message.
  const reason = cause.message || ("code" in cause ? String(cause.code) : cause.name);
  return excerpt(error.message.includes(reason) ? error.message : `${error.message} (${reason})`);
}

type Step = <T>(doing: string, act: () => Promise<T>) => Promise<T>;

/**
 * Runs steps with a server: each ends after `seconds`, or when `stopped` rejects. The client's own limit applies to one request, and
 * a list of tools may take many. A step throws McpError.
 */
const createStep =
  (name: string, seconds: number, stopped: Promise<never>, excerpt: Excerpt): Step =>
  async (doing, act) => {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new McpError(`${name} did not answer within ${seconds} s while ${doing}`, {
        next: "See its log. If it needs longer, raise --seconds.",
      });
      timer = setTimeout(() => reject(error), seconds * 1000);
    });
    try {
      return await Promise.race([act(), stopped, late]);
    } catch (error) {
      if (error instanceof ToolError) throw error;
      throw new McpError(`${name} failed while ${doing}: ${describeError(error, excerpt)}`, {
        next: "See its log, and fix what it reports.",
      });
    } finally {
      clearTimeout(timer);
    }
  };

/**
 * Connects to an MCP server, uses it, and ends its session. The client negotiates the revision: it asks with `server/discover`, and
 * falls back to `initialize`. `warn` gets a session that could not be ended. Throws what `use` throws; McpError when the server
 * cannot be used; AuthorizationNeededError when it asks for a token and there is none.
 */
export async function useServer<T>(
  endpoint: URL,
  { seconds, token, initialize = false }: Access,
  warn: (message: string) => void,
  use: (server: Server) => Promise<T>,
): Promise<T> {
  const excerpt = excerptWithout(token);
  const name = `The MCP server at ${endpoint.href}`;
  const { fetch, stopped } = createGuardedFetch(name, seconds, token !== undefined);
  const client = new Client(
    { name: "smoke-mcp", version: "1.0.0" },
    { versionNegotiation: { mode: initialize ? "legacy" : "auto" }, listMaxPages: MOST_PAGES },
  );
  const transport = new StreamableHTTPClientTransport(endpoint, {
    fetch,
    requestInit: token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } },
  });
  const timeout = seconds * 1000;
  const step = createStep(name, seconds, stopped, excerpt);
  try {
    await step("connecting", () => client.connect(transport, { timeout }));
    const { name: product = "unnamed", version = "" } = client.getServerVersion() ?? {};
    const revision = client.getNegotiatedProtocolVersion() ?? "unknown";
    const offered = client.getDiscoverResult()?.supportedVersions ?? [];
    return await use({
      keepsSession: transport.sessionId !== undefined,
      initializesToo: offered.some((version) => version < FIRST_WITHOUT_INITIALIZE),
      description: `${excerpt(`${product} ${version}`)}, revision ${excerpt(revision)}`,
      listTools: async () =>
        (await step("listing its tools", () => client.listTools(undefined, { timeout }))).tools,
      callTool: ({ tool, arguments: given }) =>
        step(`calling ${excerpt(tool)}`, () =>
          client.callTool({ name: tool, arguments: given }, { timeout }),
        ),
    });
  } finally {
    await transport
      .terminateSession()
      .catch((error: unknown) =>
        warn(`the session at ${endpoint.href} was not ended: ${describeError(error, excerpt)}`),
      );
    // Not client.close(): before it has a revision, the client does not know its transport, and would keep the process alive.
    await transport.close();
  }
}
