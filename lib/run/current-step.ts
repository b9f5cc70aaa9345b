import { open } from "node:fs/promises";

/** The step that a run is in. */
export interface Step {
  name: string;
  /** When it began, in ms since 1970. */
  sinceMs: number;
}

/** How much of the log's end is read. A line in it can be as long as a command's output. */
const TAIL_BYTES = 64 * 1024;

/** A line that begins or ends a step, as lib/run/log.ts writes it. Foreign text is indented, so it cannot pass for one. */
const MARK = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) ([…✓✗]) (.+)$/gm;

/** The same line again, after some time: with its seconds and its progress. */
const AGAIN = /^(.+?) (\d+\.\d) s(?: · .*)?$/;

/** The step that has begun at `sinceMs` or later in a log and has not ended; undefined between two steps. */
export function stepIn(log: string, sinceMs: number): Step | undefined {
  const [, time = "", mark, text = ""] = [...log.matchAll(MARK)].at(-1) ?? [];
  const atMs = Date.parse(time);
  if (mark !== "…" || !(atMs >= sinceMs)) return undefined;
  const [, name = text, seconds = "0"] = text.match(AGAIN) ?? [];
  return { name, sinceMs: atMs - Number(seconds) * 1000 };
}

/**
 * The step of the run that began at `sinceMs`, from the log file of all runs. The run record does not have it: that is synced to
 * the disk with each write, which would delay every step, and a failed write would end the run. Never throws.
 */
export async function readStep(logFile: string, sinceMs: number): Promise<Step | undefined> {
  try {
    const file = await open(logFile);
    try {
      const { size } = await file.stat();
      const from = Math.max(0, size - TAIL_BYTES);
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(size - from), position: from });
      return stepIn(buffer.toString("utf8", 0, bytesRead), sinceMs);
    } finally {
      await file.close();
    }
  } catch {
    return undefined;
  }
}
