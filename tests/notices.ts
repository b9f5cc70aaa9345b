import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** A server that receives the notifications of runs. */
export interface Notices {
  /** For NOTIFY_URL, without a query. */
  url: string;
  /** What it received: one entry for each notification, which is small. */
  received: readonly string[];
  close(): void;
}

/** Starts a server for notifications, on a free port of this machine. */
export async function receiveNotices(): Promise<Notices> {
  const received: string[] = [];
  const server = createServer(async (request, response) => {
    for await (const chunk of request) received.push(String(chunk));
    response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return { url, received, close: () => void server.close() };
}
