/**
 * A small API that has nothing in common with loop-api: another port, another health check, a WebSocket, and no vault.
 * It uses no npm packages. GET /up is the health check; a WebSocket to /clock gets the version and the time every second.
 *
 * LOOP_FAULT=sick, for tests: /up reports "ok": false.
 */
import { createHash } from "node:crypto";
import { createServer } from "node:http";

const VERSION = "1.0.0";
const PORT = 3000;
const isHealthy = process.env.LOOP_FAULT !== "sick";

/** Open WebSockets, which end with the process. */
const clocks = new Set();

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url ?? "/", "http://api");
  const answer = (status, body) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  if (pathname === "/up") return answer(200, { ok: isHealthy, version: VERSION });
  if (pathname === "/") return answer(200, { version: VERSION, color: process.env.LOOP_COLOR });
  answer(404, { error: `There is no ${pathname}`, version: VERSION });
});

/** A text message of less than 126 bytes as a WebSocket frame. */
const frame = (text) => Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]);

/** A close frame with a status: 1000 is a normal closure, 1001 means that the server is going away. */
const close = (status) => Buffer.from([0x88, 2, status >> 8, status & 0xff]);
const isClose = (data) => (data[0] & 0x0f) === 8;

server.on("upgrade", ({ url, headers }, socket) => {
  const key = headers["sec-websocket-key"];
  if (url !== "/clock" || !key) return socket.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n");
  // The constant is part of the WebSocket protocol (RFC 6455).
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  const tell = () => socket.write(frame(`${VERSION} ${new Date().toISOString()}`));
  const timer = setInterval(tell, 1000);
  tell();
  clocks.add(socket);
  socket
    .on("data", (data) => isClose(data) && socket.end(close(1000)))
    .on("error", () => socket.destroy())
    .on("close", () => {
      clearInterval(timer);
      clocks.delete(socket);
    });
});

// nginx reuses connections: they must stay open longer than API_IDLE_SECONDS.
server.keepAliveTimeout = 5000;
server.listen(PORT);

process.once("SIGTERM", () => {
  server.close();
  for (const socket of clocks) socket.end(close(1001));
});
