import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ROOT, rawSettings } from "../../lib/settings.ts";

async function sources(): Promise<string> {
  const lib = join(ROOT, "lib");
  const files = (await readdir(lib, { recursive: true }))
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(lib, file));
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

/** The names and default of each row of the README's table of settings; a row may have several of both. */
async function settingsTable(): Promise<Map<string, string>> {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const rows = readme.slice(readme.indexOf("## Settings")).matchAll(/^\| (`[A-Z_`, ]+`) \| (.*?) \|/gm);
  return new Map(
    [...rows].flatMap(([, names = "", defaults = ""]) => {
      const [name, value] = [names.split(", "), defaults.split(", ")];
      return name.map((text, i): [string, string] => [
        text.replaceAll("`", ""),
        (name.length > 1 ? value[i] : defaults) ?? "",
      ]);
    }),
  );
}

test("the README's table has every setting with its default, and so has the file to copy", async () => {
  const table = await settingsTable();
  const example = await readFile(join(ROOT, ".env.blue-green.example"), "utf8");
  const schema = rawSettings("nothing");
  const defaults = schema.parse({});
  assert.equal([...table.keys()].sort(), Object.keys(schema.shape).sort());
  for (const [name, value] of table) {
    const copied = example.match(new RegExp(`^#${name}=(.*)$`, "m"))?.[1];
    assert.ok(copied, `${name} is not in the file to copy`);
    const own = String(defaults[name as keyof typeof defaults] ?? "").replace(ROOT, "");
    // Found out on this machine, or made of other settings: there the table has words.
    if (!own || own.startsWith("/") || name === "VAULT_PATH") continue;
    assert.match(value, new RegExp(`^\`?${own.replaceAll(".", "\\.")}\`?( s)?$`), name);
    assert.is(copied, own, name);
  }
});
test.run();
