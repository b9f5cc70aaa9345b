import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import { pipeline } from "node:stream";
import { COLORS, type Color } from "../color.ts";
import { inspectColors } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import { PortConflictError } from "../errors.ts";
import { keyHeaders } from "../nginx/key.ts";
import type { Context } from "../run/context.ts";
import { getHostPort } from "../settings.ts";

/**
 * Makes each color answer at its BLUE_PORT or GREEN_PORT on this machine. A Compose color listens there itself. For a color in a
 * swarm, a temporary server forwards the requests through nginx. Returns what closes these servers. Throws DockerError,
 * PortConflictError.
 */
export async function openColorUrls(context: Context): Promise<() => void> {
  const servers: Server[] = [];
  const close = (): void => {
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  };
  try {
    const engine = engineOf(context);
    const without = COLORS.filter((color) => engine.portOf(context, color) === undefined);
    const colors = without.length > 0 ? await inspectColors(context) : undefined;
    for (const color of without)
      if (!colors?.[color].ports.includes(getHostPort(context.settings, color)))
        servers.push(await forward(context, color));
    return close;
  } catch (error) {
    close();
    throw error;
  }
}

/** nginx resolves ".." in a path, encoded or not: the request, which has the key, would leave the color's path. */
function leadsElsewhere(url: string): boolean {
  const [path = ""] = url.split(/[?#]/);
  try {
    return !/^\/(?!\/)/.test(path) || /(^|[/\\])\.\.([/\\]|$)|\\/.test(decodeURIComponent(path));
  } catch {
    return true;
  }
}

async function forward({ settings }: Context, color: Color): Promise<Server> {
  const key = await keyHeaders(settings);
  const server = createServer((asked, answer) => {
    const { method = "GET", headers, url = "/" } = asked;
    if (leadsElsewhere(url)) return void answer.writeHead(400).end();
    const target = `${settings.nginxUrl}/_loop/${color}${url}`;
    const forwarded = request(target, { method, headers: { ...headers, ...key } }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      pipeline(response, answer, () => undefined); // also ends what nginx has cut off
    });
    forwarded.on("error", () => answer.destroy());
    answer.on("close", () => forwarded.destroy());
    asked.pipe(forwarded);
  });
  const port = getHostPort(settings, color);
  server.listen(port, "127.0.0.1");
  await once(server, "listening").catch((error) => {
    throw new PortConflictError("Port conflict detected, check running containers", {
      details: `Port ${port}, at which ${color} is to answer during the test or hook: ${error}`,
      next: `Stop what listens there, or set ${color.toUpperCase()}_PORT to a free port, and run this again.`,
    });
  });
  return server;
}
