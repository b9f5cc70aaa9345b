import { appendFile, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { addToHistory, type Entry, readHistory } from "../../lib/run/history.ts";
import { suite } from "../suite.ts";

const history = suite<{ folder: string; file: string }>("history");
history.before.each(async (context) => {
  context.folder = await tempFolder("history");
  context.file = join(context.folder, "history.jsonl");
});
history.after.each(({ folder }) => rm(folder, { recursive: true }));

const entry = (message: string): Entry => ({
  time: "2030-01-01T03:00:00.000Z",
  verb: "deploy",
  from: "blue",
  to: "green",
  seconds: 41.2,
  steps: { "build green": 20.5 },
  result: "done",
  message,
});

history("added runs are read back in order; without a file there are none", async ({ file }) => {
  assert.equal(await readHistory(file), []);
  await addToHistory(file, entry("one"));
  await addToHistory(file, { time: "t", verb: "rollback", result: "killed", message: "two" });
  assert.equal(
    (await readHistory(file)).map(({ message }) => message),
    ["one", "two"],
  );
});

history("a truncated last line is skipped and does not damage the next entry", async ({ file }) => {
  await addToHistory(file, entry("one"));
  await appendFile(file, '{"time":"2030-01-02T03:00');
  assert.is((await readHistory(file)).length, 1);
  await addToHistory(file, entry("two"));
  assert.equal(
    (await readHistory(file)).map(({ message }) => message),
    ["one", "two"],
  );
});

history("a history that is too large loses its older half", async ({ file }) => {
  await appendFile(file, `${JSON.stringify(entry("x".repeat(2000)))}\n`.repeat(300));
  await addToHistory(file, entry("last"));
  const runs = await readHistory(file);
  assert.is(runs.length, 151);
  assert.is(runs.at(-1)?.message, "last");
  assert.ok((await readFile(file, "utf8")).length < 400_000);
});
history.run();
