import { connect, createServer, type Socket } from "node:net";

/** Another socket of the engine, as Docker Desktop and colima have one. */
export interface EngineProxy {
  /** As in DOCKER_HOST. */
  host: string;
  /** How many connections it has passed on. */
  connections(): number;
  /** Ends all connections, as an engine that stops; nothing listens at the path any more. */
  close(): void;
}

/** Listens at a path and passes each connection on to the engine of this machine. */
export async function proxyEngine(path: string): Promise<EngineProxy> {
  const engine = process.env.DOCKER_HOST?.replace("unix://", "") ?? "/var/run/docker.sock";
  let connections = 0;
  const open = new Set<Socket>();
  // Half-open, because `docker exec` closes its input and still reads.
  const server = createServer({ allowHalfOpen: true }, (client) => {
    connections += 1;
    const upstream = connect({ path: engine, allowHalfOpen: true });
    const pass = (from: Socket, to: Socket): void => {
      open.add(from);
      from.on("close", () => open.delete(from));
      from.pipe(to);
      from.on("error", () => to.destroy());
    };
    pass(client, upstream);
    pass(upstream, client);
  }).listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  server.unref();
  const close = (): void => {
    server.close();
    for (const socket of open) socket.destroy();
  };
  return { host: `unix://${path}`, connections: () => connections, close };
}
