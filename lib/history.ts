import { open, readFile } from "node:fs/promises";
import { handOver, replaceFile } from "./atomic.ts";
import { COLORS } from "./color.ts";
import { type Infer, z } from "./zod.ts";

/** When it has grown beyond this, the older half of the runs is dropped. */
const BOUND_BYTES = 512 * 1024;

/** One run of deploy or rollback, a JSON line in the history file. */
export const Entry = z.object({
  /** When it began: ISO 8601, UTC. */
  time: z.string(),
  verb: z.string(),
  from: z.enum(COLORS).optional(),
  to: z.enum(COLORS).optional(),
  /** The id of the image that `to` runs, and the source revision it was built from. */
  image: z.string().optional(),
  revision: z.string().optional(),
  /** The whole run, and each step of it, in seconds; not known of a run that was killed. */
  seconds: z.number().optional(),
  steps: z.record(z.string(), z.number()).optional(),
  /** How many requests were cut at the drain limit, where some were. */
  cut: z.number().optional(),
  /** "done", "done, interrupted", "killed", or the name of the error. */
  result: z.string(),
  message: z.string(),
});
export type Entry = Infer<typeof Entry>;

/** What a run comes to that was cut off: the next one says so for it. */
export const KILLED = "killed";

/** What a run comes to that did its work; it says so where a signal came too late to take it back. */
export const [DONE, DONE_INTERRUPTED] = ["done", "done, interrupted"] as const;

/** Does what this run did stand? */
export const stands = ({ result }: Pick<Entry, "result">): boolean =>
  result === DONE || result === DONE_INTERRUPTED;

/** The runs so far, oldest first. What a power cut left of a line is skipped. No file is no runs. */
export async function readHistory(file: string): Promise<Entry[]> {
  return parseHistory(await readFile(file, "utf8").catch(() => ""));
}

/** The runs in a text; a line that is none is skipped. */
export const parseHistory = (text: string): Entry[] =>
  text.split("\n").flatMap((line) => {
    try {
      return [Entry.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });

/** Adds a run; a torn last line does not take it along. Throws what the file system throws. */
export async function addToHistory(file: string, entry: Entry): Promise<void> {
  const text = await readFile(file, "utf8").catch(() => "");
  const line = `${JSON.stringify(entry)}\n`;
  if (text.length < BOUND_BYTES) {
    const torn = text !== "" && !text.endsWith("\n");
    return append(file, `${torn ? "\n" : ""}${line}`);
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
