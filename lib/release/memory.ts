import { readFile } from "node:fs/promises";
import { type Color, getInactiveColor } from "../color.ts";
import type { Container } from "../docker/container.ts";
import { inspectColor, nameOf } from "../engine/colors.ts";
import { MemoryError } from "../errors.ts";
import type { Context } from "../run/context.ts";

/** Bytes in words. */
export const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** The sum of some of the kernel's counters, from lines of a name and a number. A missing counter counts as 0. */
function sum(text: string, names: readonly string[]): number {
  const counters = new Map(
    [...text.matchAll(/^(\w+):?\s+(\d+)/gm)].map(([, name, value]) => [name, Number(value)]),
  );
  return names.reduce((total, name) => total + (counters.get(name) ?? 0), 0);
}

/**
 * The bytes that the kernel cannot reclaim from a container: the memory of its processes and its tmpfs, without the page
 * cache. Undefined when it does not run, or not on this host.
 */
async function memoryHeldBy({ id, pid }: Container): Promise<number | undefined> {
  const groups = pid === 0 ? "" : await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  if (!groups.includes(id)) return undefined; // the engine runs elsewhere, and the pid is another process here
  const [, path] = groups.match(/^\d+:[^:]*\bmemory\b[^:]*:(.*)$/m) ?? [];
  const file = path ? `/sys/fs/cgroup/memory${path}` : `/sys/fs/cgroup${groups.match(/^0::(.*)$/m)?.[1]}`;
  const stat = await readFile(`${file}/memory.stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  return sum(stat, path ? ["total_rss", "total_shmem"] : ["anon", "shmem"]);
}

/** Bytes that are free for a new process on this host, swap included; undefined when the kernel does not say. */
export async function freeMemory(): Promise<number | undefined> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  return text.includes("MemAvailable:") ? 1024 * sum(text, ["MemAvailable", "SwapFree"]) : undefined;
}

/**
 * Requires memory for a second color beside the active one, as much as that one holds. With too little the kernel kills
 * processes, perhaps the serving ones. If it cannot be seen, says so and continues. Throws MemoryError, DockerError.
 */
export async function expectMemory(context: Context, active: Color): Promise<void> {
  const container = await inspectColor(context, active);
  if (container.status !== "running" || container.replicas) return; // Swarm places replicas on nodes that this host cannot see
  const [held, free] = await Promise.all([memoryHeldBy(container), freeMemory()]);
  if (held === undefined || free === undefined)
    return context.log.info("free memory for a second color is unknown: this host cannot see it");
  if (held <= free) return;
  const name = nameOf(context, active);
  throw new MemoryError(`Not enough memory for a second color: ${mib(free)} free, swap included`, {
    details: `The active ${name} holds ${mib(held)}; ${getInactiveColor(active)} would need about as much.`,
    next: `Stop other programs or add swap, then run this again; docker stats shows what containers use. If ${active} holds more than it should, restart it at a quiet time: ${context.settings.dockerCmd} restart ${name}. Nothing was started.`,
  });
}

/** `expectMemory` as a step. Throws MemoryError, DockerError. */
export const checkMemory = (context: Context, active: Color): Promise<void> =>
  context.inspect(`check the memory for ${getInactiveColor(active)}`, () => expectMemory(context, active));

/**
 * The same for a rollback, as a warning: the release that it leaves may be leaking memory, and the previous one needs less.
 * Throws DockerError.
 */
export const warnOfMemory = (context: Context, active: Color): Promise<void> =>
  context.inspect(`check the memory for ${getInactiveColor(active)}`, () =>
    expectMemory(context, active).catch((error) => {
      if (!(error instanceof MemoryError)) throw error;
      context.log.warn(`${error.message}. ${error.details} Continuing, because this is a rollback`);
    }),
  );

/** Above this part of its limit, a color is close to being killed by the kernel. */
const NEAR = 0.8;

/**
 * Warns when the active color holds so much memory that the next one may exceed API_MEMORY: it may have been started with
 * another limit, or with none. Throws DockerError.
 */
export const warnOfApiMemory = (context: Context, active: Color): Promise<void> =>
  context.inspect(`check the memory of ${active}`, async () => {
    const { set, bytes } = context.settings.apiMemory;
    const container = await inspectColor(context, active);
    const held = container.status === "running" ? await memoryHeldBy(container) : undefined;
    if (bytes === 0 || held === undefined || held <= NEAR * bytes) return;
    context.log.warn(
      `the active ${nameOf(context, active)} holds ${mib(held)} of memory; API_MEMORY is ${set}, and the kernel kills a color that uses more. If it needs that much, raise API_MEMORY`,
    );
  });
