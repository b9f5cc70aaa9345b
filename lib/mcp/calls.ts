import { readFile } from "node:fs/promises";
import { UsageError } from "../errors.ts";
import { type Infer, z } from "../util/zod.ts";
import type { Excerpt } from "./excerpt.ts";

const Call = z.strictObject({
  tool: z.string().min(1),
  arguments: z.record(z.string(), z.unknown()).default({}),
  /** A text that the result must contain. */
  expect: z.string().min(1).optional(),
});
/** One call of a tool, as in the file of `--calls`. */
export type ToolCall = Infer<typeof Call>;

/** What is read of a result. */
const Result = z.object({
  isError: z.boolean().optional(),
  content: z.array(z.looseObject({ type: z.string(), text: z.string().optional() })),
});

/** The text of a file's content as JSON. Throws SyntaxError. */
function parse(text: string): unknown {
  return JSON.parse(text.replace(/^\uFEFF/, "")); // Windows editors begin files with this mark
}

/** Reads the file of `--calls`. Throws UsageError if it cannot be read, or is not a list of calls. */
export async function readCalls(path: string): Promise<ToolCall[]> {
  const next = `Correct the file. It is a list such as [{ "tool": "search", "arguments": { "query": "a" }, "expect": "b" }].`;
  try {
    return z
      .array(Call)
      .min(1)
      .parse(parse(await readFile(path, "utf8")));
  } catch (error) {
    const details = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    throw new UsageError(`Cannot use the calls in ${path}`, { next, details });
  }
}

/** What is wrong with the result of a call, in words; undefined when it is as expected. */
export function findProblem(call: ToolCall, result: unknown, excerpt: Excerpt): string | undefined {
  const parsed = Result.safeParse(result);
  if (!parsed.success) return "the result has no content";
  const { content, isError } = parsed.data;
  const text = content.flatMap((block) => block.text ?? []).join("\n");
  if (isError) return `the result is an error: ${excerpt(text)}`;
  if (call.expect === undefined || text.includes(call.expect)) return undefined;
  return `the result does not contain ${excerpt(JSON.stringify(call.expect))}: ${excerpt(text)}`;
}
