import { readdir, readFile, readlink } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import type { Color } from "../color.ts";
import { containerOnPort } from "../docker/engine.ts";
import type { StoppedService } from "../docker/services.ts";
import { nameOf } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import { PortConflictError, UsageError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { listenerByLsof } from "../run/process.ts";
import { reachedAt } from "../settings.ts";

/** Milliseconds until a connection to this host counts as refused. */
const CONNECT_MS = 1000;

/** Does a program accept connections on this address of this host? */
const accepts = (port: number, host: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host });
    const end = (accepted: boolean): void => {
      socket.destroy();
      resolve(accepted);
    };
    // A socket to a port in the kernel's own range may be connected to itself.
    socket.once("connect", () => end(socket.localPort !== port));
    socket.once("error", () => end(false));
    socket.setTimeout(CONNECT_MS, () => end(false));
  });

/** Can a port be bound, on one address of this host or on all, without taking requests of another program or losing them to it? */
async function isFree(port: number, address: string | undefined): Promise<boolean> {
  // macOS and the BSDs let one program bind 127.0.0.1 while another listens on all addresses, and the reverse.
  if (await accepts(port, reachedAt(address))) return false;
  const code = await new Promise<string | undefined>((resolve) => {
    const server = createServer()
      .once("error", (error) => resolve("code" in error ? String(error.code) : error.message))
      .listen(port, address, () => server.close(() => resolve(undefined)));
  });
  if (code === undefined) return true;
  // Only root may bind ports below 1024, but the engine can: the kernel's tables show whether somebody listens.
  return code === "EACCES" && (await listeningInodes(port)).length === 0;
}

/** The inodes of the sockets that listen on a port, from the kernel's tables: not every system has ss or lsof. */
async function listeningInodes(port: number): Promise<string[]> {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const tables = await Promise.all(
    ["/proc/net/tcp", "/proc/net/tcp6"].map((file) => readFile(file, "utf8").catch(() => "")),
  );
  const rows = tables
    .join("\n")
    .split("\n")
    .map((row) => row.trim().split(/\s+/));
  return rows.flatMap(([, local, , state, , , , , , inode]) =>
    local?.endsWith(`:${hex}`) && state === "0A" && inode ? [inode] : [],
  );
}

/** The process that listens on a port, as far as this user can see it: from /proc, else from lsof. */
async function processOnPort(port: number): Promise<string> {
  const sockets = (await listeningInodes(port)).map((inode) => `socket:[${inode}]`);
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const file of files) {
      const target = await readlink(`/proc/${pid}/fd/${file}`).catch(() => "");
      if (!sockets.includes(target)) continue;
      const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      return `the process ${command.trim()} (pid ${pid})`;
    }
  }
  return listenerByLsof(port);
}

/** Fails unless a port is free or held by the container `own`. Throws PortConflictError with the holder's name. */
async function expectPort(
  context: Context,
  {
    own,
    port,
    address,
    setting,
  }: { own: string; port: number; address: string | undefined; setting: string },
): Promise<void> {
  const container = await containerOnPort(context, port);
  if (container === own || (container === undefined && (await isFree(port, address)))) return;
  const holder = container === undefined ? await processOnPort(port) : `the container ${container}`;
  throw new PortConflictError("Port conflict detected, check running containers", {
    details: `Port ${port}, which ${own} needs, is held by ${holder}.`,
    next: `Stop it, or set ${setting} to a free port, and run this again; nothing was started.`,
  });
}

/**
 * Spec `check_port_available`: a color's host port must be free, or held by its own container, which is about to be replaced.
 * Throws PortConflictError with the name of the container or process that holds it.
 */
export const checkPortAvailable = (context: Context, color: Color): Promise<void> =>
  context.inspect(`check the port of ${color}`, async () => {
    const port = engineOf(context).portOf(context, color);
    if (port === undefined) return; // only nginx reaches it
    await expectPort(context, {
      own: nameOf(context, color),
      port,
      address: "127.0.0.1",
      setting: `${color.toUpperCase()}_PORT`,
    });
  });

/**
 * The same for nginx or auth before it is started, because Docker's own error is hard to read. The address that nginx
 * listens on must belong to this host. Throws PortConflictError, UsageError.
 */
export async function checkServicePort(
  context: Context,
  { name, port, address, setting }: StoppedService,
): Promise<void> {
  const here = Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map((one) => one.address));
  if (
    address !== undefined &&
    address !== "0.0.0.0" &&
    !address.startsWith("127.") &&
    !here.includes(address)
  ) {
    throw new UsageError(`NGINX_BIND is ${address}, which is not an address of this machine`, {
      next: `Set it to one of ${here.filter((one) => !one.includes(":")).join(", ")}; nothing was started.`,
    });
  }
  await expectPort(context, { own: name, port, address, setting });
}
