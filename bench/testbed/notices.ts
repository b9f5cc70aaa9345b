import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Notice } from "../../lib/run/notice.ts";
import { notify } from "../../lib/run/notify.ts";
import { loadSettings } from "../../lib/settings.ts";

/** A notification as its service received it. */
export interface Received {
  headers: IncomingHttpHeaders;
  /** The parameters in its address. */
  query: URLSearchParams;
  body: string;
}

/**
 * Sends a notice to a server on this machine, whose address contains the word "secret". Returns what the server received and
 * what a run would warn of.
 */
export async function sendNotice(
  environment: Record<string, string>,
  notice: Notice,
  respond = (response: ServerResponse): unknown => response.writeHead(204).end(),
): Promise<{ received: Received[]; warnings: string[] }> {
  const [received, warnings]: [Received[], string[]] = [[], []];
  const server = createServer(async ({ headers, url = "" }, response) => {
    const query = new URL(url, "http://localhost").searchParams;
    let body = "";
    for await (const chunk of response.req.setEncoding("utf8")) body += chunk;
    received.push({ headers, query, body });
    respond(response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const NOTIFY_URL = `http://127.0.0.1:${port}/bot-secret/send?chat_id=-42&token=secret`;
  const settings = loadSettings({ NOTIFY_URL, ...environment }, "/no/such/file");
  await notify(settings, notice, (message) => warnings.push(message));
  server.close();
  server.closeAllConnections();
  return { received, warnings };
}
