import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ROOT } from "../../lib/settings.ts";
import { rawSettings } from "../../lib/settings-schema.ts";

async function sources(): Promise<string> {
  const lib = join(ROOT, "lib");
  const files = (await readdir(lib, { recursive: true }))
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(lib, file));
  return (await Promise.all(files.map((file) => readFile(file, "utf8")))).join("\n");
}

/** The messages quoted in the first column of a page's tables. */
const quotedMessages = (page: string): string[] =>
  page
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((line) => line.split(" | ")[0]?.match(/`([^`]+)`/g) ?? [])
    .map((message) => message.slice(1, -1));

test("each message quoted in 'When something goes wrong' exists in the code", async () => {
  const source = await sources();
  const messages = quotedMessages(await readFile(join(ROOT, "docs/when-something-goes-wrong.md"), "utf8"));
  assert.ok(messages.length > 25, `${messages.length} messages`);
  for (const message of messages) {
    // The page writes … or X and Y for the variable parts.
    for (const part of message.split(/…|\b[XY]\b|\b30 s/).filter((text) => text.trim().length > 4)) {
      assert.ok(source.includes(part.trim()), `${JSON.stringify(part)} of ${JSON.stringify(message)}`);
    }
  }
});

test("each error message of the code is on that page", async () => {
  const page = await readFile(join(ROOT, "docs/when-something-goes-wrong.md"), "utf8");
  const source = await sources();
  const starts = [...source.matchAll(/new \w+Error\(\s*[`"]([^`"$]{12,})/g)].map(
    ([, start]) => start?.trim() ?? "",
  );
  assert.ok(starts.length > 8, `${starts.length} messages`);
  for (const message of starts) {
    if (["nginx's container does not answer", "Run it with --help"].includes(message)) continue; // never shown on their own
    const start = message.slice(0, 20);
    assert.ok(page.includes(start), `${JSON.stringify(start)} is not on the page`);
  }
});

/** The settings in the README's table with their defaults. A row may have several of both. */
async function settingsTable(): Promise<Map<string, string>> {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const rows = readme.slice(readme.indexOf("## Settings")).matchAll(/^\| (`[A-Z_`, ]+`) \| (.*?) \|/gm);
  return new Map(
    [...rows].flatMap(([, names = "", defaults = ""]) => {
      const [inRow, values] = [names.split(", "), defaults.split(", ")];
      return inRow.map((name, i): [string, string] => [
        name.replaceAll("`", ""),
        (inRow.length > 1 ? values[i] : defaults) ?? "",
      ]);
    }),
  );
}

test("the README's table and .env.blue-green.example have every setting with its default", async () => {
  const table = await settingsTable();
  const example = await readFile(join(ROOT, ".env.blue-green.example"), "utf8");
  const schema = rawSettings(ROOT, "nothing");
  const defaults = schema.parse({});
  assert.equal([...table.keys()].sort(), Object.keys(schema.shape).sort());
  for (const [name, value] of table) {
    const inExample = example.match(new RegExp(`^#${name}=(.*)$`, "m"))?.[1];
    assert.ok(inExample, `${name} is not in .env.blue-green.example`);
    const expected = String(defaults[name as keyof typeof defaults] ?? "").replace(ROOT, "");
    // Defaults that depend on this machine or on other settings are described in words.
    if (!expected || expected.startsWith("/") || name === "VAULT_PATH") continue;
    assert.match(value, new RegExp(`^\`?${expected.replaceAll(".", "\\.")}\`?( s)?$`), name);
    assert.is(inExample, expected, name);
  }
});
test.run();
