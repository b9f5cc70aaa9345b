import { readFile } from "node:fs/promises";

/** Is a process outside any container? A process in a container has a second pid there. */
export async function isOfThisHost(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return (status.match(/^NSpid:\s*(.*)$/m)?.[1]?.split(/\s+/) ?? []).length === 1;
}

/** The pid of a process's parent; 0 when there is none, or the process has ended. */
export async function parentOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(status.match(/^PPid:\s*(\d+)/m)?.[1] ?? 0);
}
