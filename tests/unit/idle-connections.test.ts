import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { closedAfter } from "../../lib/release/idle-connections.ts";

/** Starts a server and watches an idle connection to it. Returns the result of `closedAfter`. */
async function watchIdle(server: Server, seconds = 1): Promise<number | undefined> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await closedAfter((server.address() as AddressInfo).port, "/health", seconds);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const serverWith = (headers: Record<string, string> = {}, after?: number) =>
  createServer((request, response) => {
    response.writeHead(200, headers).end("{}");
    if (after !== undefined) response.on("finish", () => setTimeout(() => request.socket.end(), after));
  });

test("a connection that stays open passes", async () => {
  assert.is(await watchIdle(serverWith()), undefined);
});

test("an early close is timed, even if the response announces a longer timeout", async () => {
  const seconds = await watchIdle(serverWith({}, 200));
  assert.ok(seconds !== undefined && seconds >= 0.15 && seconds < 1, String(seconds));
  assert.ok((await watchIdle(serverWith({}, 0))) !== undefined);
  const nodeServer = serverWith(); // it sends `Keep-Alive: timeout=…`, which an HTTP client would honor
  nodeServer.keepAliveTimeout = 300;
  assert.ok((await watchIdle(nodeServer, 3)) !== undefined);
});

test("an announced close passes, because nginx does not reuse such a connection", async () => {
  assert.is(await watchIdle(serverWith({ connection: "close" }, 0)), undefined);
});

test("a server that is down passes: other checks find that", async () => {
  const server = serverWith().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  assert.is(await closedAfter(port, "/health", 1), undefined);
});
test.run();
