import { readdir, readFile, readlink } from "node:fs/promises";
import { createServer } from "node:net";
import type { Color } from "./color.ts";
import { containerOf } from "./docker/container.ts";
import { containerOnPort } from "./docker/engine.ts";
import { PortConflictError } from "./errors.ts";
import { getHostPort } from "./settings.ts";
import type { Stack } from "./stack.ts";

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
      .once("error", () => resolve(false))
      .listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });

/** The inodes of the sockets that listen on a port, from the kernel's tables: neither ss nor lsof is everywhere. */
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

/** Names the process that listens on a port, as far as this user may see it. */
async function processOnPort(port: number): Promise<string> {
  const sockets = (await listeningInodes(port)).map((inode) => `socket:[${inode}]`);
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const file of files) {
      const target = await readlink(`/proc/${pid}/fd/${file}`).catch(() => "");
      if (!sockets.includes(target)) continue;
      const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      return `the process ${command.trim()} (pid ${pid})`;
    }
  }
  return "a process that this user may not see (try as root)";
}

/**
 * Spec `check_port_available`: a colour's host port is free, or held by its own container, which is about to be replaced.
 * Throws PortConflictError that names the container or process which holds it.
 */
export async function checkPortAvailable(stack: Stack, color: Color): Promise<void> {
  const port = getHostPort(stack.settings, color);
  const own = containerOf(stack.settings, color);
  const container = await containerOnPort(stack, port);
  if (container === own || (container === undefined && (await isFree(port)))) return;
  const holder = container === undefined ? await processOnPort(port) : `the container ${container}`;
  throw new PortConflictError("Port conflict detected, check running containers", {
    details: `Port ${port}, which ${own} needs, is held by ${holder}.`,
    next: `Stop it or set ${color.toUpperCase()}_PORT to a free port, then run this again; nothing was started.`,
  });
}
