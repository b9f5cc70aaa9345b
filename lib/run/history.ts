import { open, readFile } from "node:fs/promises";
import { COLORS } from "../color.ts";
import { Comparison } from "../traffic.ts";
import { handOver, replaceFile } from "../util/atomic.ts";
import { type Infer, z } from "../util/zod.ts";

/** Above this size, the older half of the runs is dropped. */
const BOUND_BYTES = 512 * 1024;

/** One deploy or rollback: a JSON line in the history file. */
export const Entry = z.object({
  /** When it began: ISO 8601, UTC. */
  time: z.string(),
  verb: z.string(),
  from: z.enum(COLORS).optional(),
  to: z.enum(COLORS).optional(),
  /** The id of the image of `to`, and its source revision. */
  image: z.string().optional(),
  revision: z.string().optional(),
  /** Where it was pulled from, with its digest; a killed pull has only the tag. */
  source: z.string().optional(),
  /** The seconds of the whole run, and of each step; unknown for a killed run. */
  seconds: z.number().optional(),
  steps: z.record(z.string(), z.number()).optional(),
  /** How many requests were interrupted at the drain limit, if any. */
  cut: z.number().optional(),
  /** The responses to clients that the run has judged. */
  traffic: Comparison.optional(),
  /** "done", "done, interrupted", "killed", or the name of the error. */
  result: z.string(),
  message: z.string(),
});
export type Entry = Infer<typeof Entry>;

/** The result of a killed run; the next run writes it. */
export const KILLED = "killed";

/** The results of a successful run; the second one when a signal came too late to undo it. */
export const [DONE, DONE_INTERRUPTED] = ["done", "done, interrupted"] as const;

/** Was this run successful, so that its release stands? */
export const stands = ({ result }: Pick<Entry, "result">): boolean =>
  result === DONE || result === DONE_INTERRUPTED;

/** The runs so far, oldest first; none without a file. A line that a power cut truncated is skipped. */
export async function readHistory(file: string): Promise<Entry[]> {
  return parseHistory(await readFile(file, "utf8").catch(() => ""));
}

/** The runs in a text. Invalid lines are skipped. */
export const parseHistory = (text: string): Entry[] =>
  text.split("\n").flatMap((line) => {
    try {
      return [Entry.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });

/** Adds a run, on a new line even after a truncated one. Throws what the file system throws. */
export async function addToHistory(file: string, entry: Entry): Promise<void> {
  const text = await readFile(file, "utf8").catch(() => "");
  const line = `${JSON.stringify(entry)}\n`;
  if (text.length < BOUND_BYTES) {
    const truncated = text !== "" && !text.endsWith("\n");
    return append(file, `${truncated ? "\n" : ""}${line}`);
  }
  const lines = text.split("\n").filter(Boolean);
  await replaceFile(file, `${lines.slice(Math.ceil(lines.length / 2)).join("\n")}\n${line}`);
}

async function append(file: string, text: string): Promise<void> {
  const handle = await open(file, "a", 0o644);
  try {
    handOver(handle.fd, file);
    await handle.writeFile(text);
  } finally {
    await handle.close();
  }
}
