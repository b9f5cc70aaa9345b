import type { RequestListener } from "node:http";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AuthorizationNeededError, McpError } from "../../lib/errors.ts";
import { createGuardedFetch, MOST_BYTES } from "../../lib/mcp/guarded-fetch.ts";
import { serve } from "../mcp-servers.ts";

interface Sent {
  status?: number;
  body?: string;
  /** Why the server may not be used any further. */
  stopped?: unknown;
  /** The methods of the requests that reached the server. */
  received: string[];
}

/** Sends requests through one guarded fetch, one after the other. */
async function send(
  listener: RequestListener,
  inits: RequestInit[] = [{ method: "POST" }],
  withToken = false,
): Promise<Sent> {
  const received: string[] = [];
  const server = await serve((request, response) => {
    received.push(request.method ?? "");
    listener(request, response);
  });
  const { fetch, stopped } = createGuardedFetch("S", 1, withToken);
  const sent: Sent = { received };
  stopped.catch((error: unknown) => {
    sent.stopped = error;
  });
  try {
    for (const init of inits) {
      const response = await fetch(server.url, init);
      sent.status = response.status;
      sent.body = await response.text();
    }
  } catch (error) {
    assert.is(error, sent.stopped);
  } finally {
    server.close();
  }
  return sent;
}

test("a response passes unchanged", async () => {
  const { status, body, stopped } = await send((_, response) => response.writeHead(404).end("none"));
  assert.equal([status, body, stopped], [404, "none", undefined]);
});

test("a response that is too large ends the test, and so do many that are too large together", async () => {
  const large = await send((_, response) => response.end("x".repeat(MOST_BYTES + 1)));
  assert.match((large.stopped as Error).message, "sent more than 16 MiB");
  const half: RequestListener = (_, response) => response.end("x".repeat(MOST_BYTES / 2));
  const post = { method: "POST" };
  const many = await send(half, [post, post, post, post]);
  assert.instance(many.stopped, McpError);
  assert.is(many.received.length, 3, "two are within the limit");
});

test("the listening stream is not opened, but a broken stream is resumed", async () => {
  const stream = { method: "GET", headers: { accept: "text/event-stream" } };
  const answer: RequestListener = (_, response) => response.end();
  const first = await send(answer, [stream]);
  assert.equal([first.status, first.received], [405, []]);
  const resumed = await send(answer, [{ ...stream, headers: { "last-event-id": "7" } }]);
  assert.equal([resumed.status, resumed.received], [200, ["GET"]]);
});

test("the DELETE of a session is sent although its client has given up", async () => {
  const signal = AbortSignal.abort();
  const sent = await send((_, response) => response.end(), [{ method: "DELETE", signal }]);
  assert.equal(sent.received, ["DELETE"]);
});

const unauthorized =
  (challenge?: string): RequestListener =>
  (_, response) =>
    response.writeHead(401, challenge ? { "www-authenticate": challenge } : {}).end();

test("401 with a challenge asks for a token; with a token, or without a challenge, it is a failure", async () => {
  const asked = await send(unauthorized('Bearer realm="a"'));
  assert.instance(asked.stopped, AuthorizationNeededError);
  const refused = await send(unauthorized('Bearer error="invalid_token"'), undefined, true);
  assert.not.instance(refused.stopped, AuthorizationNeededError);
  assert.match((refused.stopped as Error).message, "rejected LOOP_TOKEN");
  const mute = await send(unauthorized());
  assert.not.instance(mute.stopped, AuthorizationNeededError);
  assert.match((mute.stopped as Error).message, "without a valid WWW-Authenticate header");
});
test.run();
