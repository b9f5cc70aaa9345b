import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { closedAfter } from "../../lib/release/idle-connections.ts";

/** Watches a server's idle connection. */
async function watched(server: Server, seconds = 1): Promise<number | undefined> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await closedAfter((server.address() as AddressInfo).port, "/health", seconds);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const answer = (headers: Record<string, string> = {}, after?: number) =>
  createServer((request, response) => {
    response.writeHead(200, headers).end("{}");
    if (after !== undefined) response.on("finish", () => setTimeout(() => request.socket.end(), after));
  });

test("a connection that stays open is fine", async () => {
  assert.is(await watched(answer()), undefined);
});

test("one that is closed early is timed, also where the response names a time", async () => {
  const seconds = await watched(answer({}, 200));
  assert.ok(seconds !== undefined && seconds >= 0.15 && seconds < 1, String(seconds));
  assert.ok((await watched(answer({}, 0))) !== undefined);
  const node = answer(); // it says `Keep-Alive: timeout=…`, which an HTTP client would go by
  node.keepAliveTimeout = 300;
  assert.ok((await watched(node, 3)) !== undefined);
});

test("one whose end is announced is fine: nginx does not keep it", async () => {
  assert.is(await watched(answer({ connection: "close" }, 0)), undefined);
});

test("a server that is away is not this check's to find", async () => {
  const server = answer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  assert.is(await closedAfter(port, "/health", 1), undefined);
});
test.run();
