import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadSettings, ROOT } from "../lib/settings.ts";

async function sources(): Promise<string> {
  const lib = join(ROOT, "lib");
  const files = (await readdir(lib, { recursive: true }))
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(lib, file));
  files.push(join(ROOT, "scripts/rollback.mts"));
  return (await Promise.all(files.map((file) => readFile(file, "utf8")))).join("\n");
}

/** The first cells of a page's table rows, where they quote messages. */
const quoted = (page: string): string[] =>
  page
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((line) => line.split(" | ")[0]?.match(/`([^`]+)`/g) ?? [])
    .map((message) => message.slice(1, -1));

test("each message in 'When something goes wrong' is one that the tool has", async () => {
  const source = await sources();
  const messages = quoted(await readFile(join(ROOT, "docs/when-something-goes-wrong.md"), "utf8"));
  assert.ok(messages.length > 25, `${messages.length} messages`);
  for (const message of messages) {
    // What differs from run to run stands as … or X and Y.
    for (const part of message.split(/…|\b[XY]\b|\b30 s/).filter((text) => text.trim().length > 4)) {
      assert.ok(source.includes(part.trim()), `${JSON.stringify(part)} of ${JSON.stringify(message)}`);
    }
  }
});

test("each kind of error is on that page", async () => {
  const page = await readFile(join(ROOT, "docs/when-something-goes-wrong.md"), "utf8");
  const source = await sources();
  const heads = [...source.matchAll(/new \w+Error\(\s*[`"]([^`"$]{12,})/g)].map(
    ([, head]) => head?.trim() ?? "",
  );
  assert.ok(heads.length > 8, `${heads.length} messages`);
  for (const head of heads) {
    if (["nginx's container does not answer", "Run it with --help"].includes(head)) continue; // never reach an owner alone
    const start = head.slice(0, 20);
    assert.ok(page.includes(start), `${JSON.stringify(start)} is not on the page`);
  }
});

test("the README's table names every setting", async () => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const table = readme.slice(readme.indexOf("## Settings"), readme.indexOf("To release your own API"));
  const names = [
    ...Object.keys(loadSettings({}, "/no/such/file").environment),
    "LOG_FILE",
    "NOTIFY_URL",
    "NOTIFY_ON",
  ];
  for (const name of names.filter((text) => /^[A-Z_]+$/.test(text))) {
    assert.ok(table.includes(`\`${name}\``), name);
  }
});
test.run();
