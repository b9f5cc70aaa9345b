import type { FetchLike } from "@modelcontextprotocol/client";
import { AuthorizationNeededError, McpError } from "../errors.ts";
import { asksForToken } from "./challenge.ts";

const MIB = 2 ** 20;
/** The bytes that a server may send in all, after decompression. */
export const MOST_BYTES = 16 * MIB;

/** What ends the test of a server, whatever its client does: see `createGuardedFetch`. */
export interface GuardedFetch {
  fetch: FetchLike;
  /** Rejects with McpError when the server may not be used any further. Never resolves. */
  stopped: Promise<never>;
}

function refusal(response: Response, name: string, withToken: boolean): McpError {
  if (withToken) {
    const next = "Set LOOP_TOKEN to a token that is valid now.";
    return new McpError(`${name} rejected LOOP_TOKEN: HTTP 401`, { next });
  }
  if (asksForToken(response.headers.get("www-authenticate"))) {
    const next = "Set LOOP_TOKEN to inspect the server.";
    return new AuthorizationNeededError(`${name} requires authorization`, { next });
  }
  return new McpError(`${name} answered HTTP 401 without a valid WWW-Authenticate header`, {
    next: "Make the server send a Bearer challenge (RFC 6750, RFC 9728): without one, clients cannot sign in.",
  });
}

/**
 * The fetch of a client for the server that errors call `name`. It bounds what the server sends in all, ends the test on 401, and
 * lets the DELETE of a session outlive the client, for `seconds`. `withToken`: requests carry LOOP_TOKEN.
 */
export function createGuardedFetch(name: string, seconds: number, withToken: boolean): GuardedFetch {
  let stop: (error: McpError) => void = () => undefined;
  const stopped = new Promise<never>((_, reject) => {
    stop = reject;
  });
  stopped.catch(() => undefined); // between two steps nobody waits for it
  let bytes = 0;
  const count = () =>
    new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        bytes += chunk.byteLength;
        if (bytes <= MOST_BYTES) return controller.enqueue(chunk);
        const error = new McpError(`${name} sent more than ${MOST_BYTES / MIB} MiB`, {
          next: "Check its tools and the results of the calls: clients would have to load all of it.",
        });
        stop(error);
        controller.error(error);
      },
    });
  const guarded: FetchLike = async (to, init = {}) => {
    // The client opens a stream for notifications, which a test does not need. 405 is what a server without one answers.
    if (init.method === "GET" && !new Headers(init.headers).has("last-event-id"))
      return new Response(null, { status: 405 });
    // A client whose connection failed has aborted its own signal, and would leave the session behind.
    const signal = init.method === "DELETE" ? AbortSignal.timeout(seconds * 1000) : init.signal;
    const response = await fetch(to, { ...init, ...(signal ? { signal } : {}) });
    const { status, statusText, headers } = response;
    if (status === 401) stop(refusal(response, name, withToken));
    return new Response(response.body?.pipeThrough(count()) ?? null, { status, statusText, headers });
  };
  return { fetch: guarded, stopped };
}
