import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { UsageError } from "../../lib/errors.ts";
import { findProblem, readCalls } from "../../lib/mcp/calls.ts";
import { excerptWithout } from "../../lib/mcp/excerpt.ts";

const excerpt = excerptWithout(undefined);
const folder = await tempFolder("calls");
test.after(() => rm(folder, { recursive: true }));

async function read(content: string): ReturnType<typeof readCalls> {
  const path = join(folder, "calls.json");
  await writeFile(path, content);
  return readCalls(path);
}

async function readingFails(path: Promise<unknown>): Promise<UsageError> {
  const error = await path.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.instance(error, UsageError);
  return error as UsageError;
}

test("a file of calls is read, with or without a byte order mark", async () => {
  const calls = [{ tool: "a" }, { tool: "b", arguments: { n: 1 }, expect: "c" }];
  const expected = [{ tool: "a", arguments: {} }, calls[1]];
  assert.equal(await read(JSON.stringify(calls)), expected);
  assert.equal(await read(`\uFEFF${JSON.stringify(calls)}`), expected);
});

test("anything else is rejected, and the error names the file and what is wrong", async () => {
  for (const [content, named] of [
    ["{nope", "JSON"],
    ["{}", "expected array"],
    ["[]", "expected array to have >=1 items"],
    ['[{ "tool": "" }]', "[0].tool"],
    ['[{ "tool": "a", "argument": {} }]', '"argument"'],
    ['[{ "tool": "a", "arguments": [] }]', "[0].arguments"],
    ['[{ "tool": "a", "expect": "" }]', "[0].expect"],
  ] as const) {
    const error = await readingFails(read(content));
    assert.match(error.message, "calls.json");
    assert.match(error.details, named);
  }
});

test("a missing file is reported", async () => {
  assert.match((await readingFails(readCalls(join(folder, "none.json")))).details, "ENOENT");
});

const call = { tool: "a", arguments: {}, expect: "found" };
const text = (...texts: string[]) => ({ content: texts.map((value) => ({ type: "text", text: value })) });

test("a result passes if it contains the expected text, or none is expected", () => {
  assert.is(findProblem(call, text("x", "it was found"), excerpt), undefined);
  assert.is(findProblem({ tool: "a", arguments: {} }, { content: [] }, excerpt), undefined);
  assert.is(findProblem({ tool: "a", arguments: {} }, { content: [{ type: "image" }] }, excerpt), undefined);
});

test("an error, another text and a result without content fail", () => {
  assert.match(findProblem(call, { ...text("found"), isError: true }, excerpt) ?? "", "is an error: found");
  assert.match(findProblem(call, text("lost"), excerpt) ?? "", 'does not contain "found": lost');
  assert.match(findProblem(call, {}, excerpt) ?? "", "no content");
});
test.run();
