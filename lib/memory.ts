import { readFile } from "node:fs/promises";
import { type Color, getInactiveColor } from "./color.ts";
import { type Container, containerOf, inspectColor } from "./docker/container.ts";
import { MemoryError } from "./errors.ts";
import type { Stack } from "./stack.ts";

const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** The sum of some of the kernel's counters, out of lines of a name and a number; one that a kernel does not have counts as 0. */
function sum(text: string, names: readonly string[]): number {
  const counters = new Map(
    [...text.matchAll(/^(\w+):?\s+(\d+)/gm)].map(([, name, value]) => [name, Number(value)]),
  );
  return names.reduce((total, name) => total + (counters.get(name) ?? 0), 0);
}

/**
 * What a container holds that the kernel cannot take back, in bytes: its processes' own memory and its tmpfs, without the
 * cache of files. Undefined where it does not run, or not on this host.
 */
async function heldBy({ id, pid }: Container): Promise<number | undefined> {
  const groups = pid === 0 ? "" : await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  if (!groups.includes(id)) return undefined; // with an engine elsewhere, that is another process's number
  const [, path] = groups.match(/^\d+:[^:]*\bmemory\b[^:]*:(.*)$/m) ?? [];
  const file = path ? `/sys/fs/cgroup/memory${path}` : `/sys/fs/cgroup${groups.match(/^0::(.*)$/m)?.[1]}`;
  const stat = await readFile(`${file}/memory.stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  return sum(stat, path ? ["total_rss", "total_shmem"] : ["anon", "shmem"]);
}

/** What is free on this host for a new process, swap included, in bytes; undefined where the kernel does not say. */
async function freeMemory(): Promise<number | undefined> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  return text.includes("MemAvailable:") ? 1024 * sum(text, ["MemAvailable", "SwapFree"]) : undefined;
}

/**
 * Is there memory for a second color beside the one that serves, going by what that one holds? Too little would have the
 * kernel kill processes, and it may choose those that serve. Where it cannot be seen, it says so and goes on.
 * Throws MemoryError, DockerError.
 */
export async function checkMemory(stack: Stack, active: Color): Promise<void> {
  const container = await inspectColor(stack, active);
  if (container.status !== "running") return;
  const [held, free] = await Promise.all([heldBy(container), freeMemory()]);
  if (held === undefined || free === undefined) {
    return stack.log.info("free memory for a second color unknown: it cannot be seen from here");
  }
  if (held <= free) return;
  const name = containerOf(stack.settings, active);
  throw new MemoryError(`Not enough memory for a second color: ${mib(free)} free, swap included`, {
    details: `${name}, which serves, holds ${mib(held)}; ${getInactiveColor(active)} would need about as much.`,
    next: `Stop other programs or add swap, then run this again; docker stats shows what containers take. Where ${active} holds more than it should, restart it at a quiet time: ${stack.settings.dockerCmd} restart ${name}. Nothing was started.`,
  });
}

/**
 * The same for a rollback, as a warning: the release that it leaves may be one that holds more and more memory, and the color
 * of before needs less. Throws DockerError.
 */
export async function warnOfMemory(stack: Stack, active: Color): Promise<void> {
  try {
    await checkMemory(stack, active);
  } catch (error) {
    if (!(error instanceof MemoryError)) throw error;
    stack.log.warn(`${error.message}. ${error.details} Continuing, because this is a rollback`);
  }
}

/** Above this part of its limit, a color has little left before the kernel ends it. */
const NEAR = 0.8;

/**
 * Warns where the color that serves holds so much memory that the next one may not fit into API_MEMORY: it may have been
 * started with another limit, or with none. Throws DockerError.
 */
export async function warnOfApiMemory(stack: Stack, active: Color): Promise<void> {
  const { set, bytes } = stack.settings.apiMemory;
  const container = await inspectColor(stack, active);
  const held = container.status === "running" ? await heldBy(container) : undefined;
  if (bytes === 0 || held === undefined || held <= NEAR * bytes) return;
  stack.log.warn(
    `${containerOf(stack.settings, active)}, which serves, holds ${mib(held)} of memory; API_MEMORY is ${set}, and the kernel ends a color that takes more than that. If yours needs it, set API_MEMORY higher`,
  );
}
