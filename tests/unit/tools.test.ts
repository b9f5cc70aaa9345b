import { test } from "uvu";
import * as assert from "uvu/assert";
import { excerptWithout } from "../../lib/mcp/excerpt.ts";
import { compareTools, describeTools, incompatibilities, type ListedTool } from "../../lib/mcp/tools.ts";

const excerpt = excerptWithout(undefined);
const named = (...names: string[]): ListedTool[] =>
  names.map((name) => ({ name, inputSchema: { type: "object" } }));

/** What breaks when the schema of one tool changes. */
const changed = (before: unknown, after: unknown): string[] =>
  incompatibilities(
    compareTools([{ name: "t", inputSchema: before }], [{ name: "t", inputSchema: after }]),
    excerpt,
  );

test("added and removed tools are named", () => {
  const [before, after] = [named("a", "b", "c"), named("b", "d", "a", "e")];
  const comparison = compareTools(before, after);
  assert.equal(comparison, { added: ["d", "e"], removed: ["c"], changed: [] });
  assert.is(describeTools(after, comparison, excerpt), "tools: 4 (+ d, + e, − c)");
  assert.equal(incompatibilities(comparison, excerpt), ["c: the tool was removed"]);
});

test("equal tools are said to be equal, and without a comparison nothing is claimed", () => {
  const tools = named("a", "constructor");
  assert.is(describeTools(tools, compareTools(tools, tools), excerpt), "tools: 2 (none added, none removed)");
  assert.is(describeTools(tools, undefined, excerpt), "tools: 2");
});

test("a long list of names is cut, and names are escaped", () => {
  const after = named(...Array.from({ length: 23 }, (_, i) => `t${i}\u001b`));
  const line = describeTools(after, compareTools([], after), excerpt);
  assert.match(line, "+ t19\\x1b, and 3 more)");
  assert.not.match(line, "t20");
});

test("of a very long list of what breaks clients, only the beginning is said", () => {
  const before = named(...Array.from({ length: 10_000 }, (_, i) => `tool ${i}`));
  const lines = incompatibilities(compareTools(before, []), excerpt);
  assert.ok(lines.length < 100, `${lines.length} lines`);
  assert.match(lines.at(-1) ?? "", /^and 99\d\d more$/);
});

test("a newly required argument breaks clients, whether it is new or was optional", () => {
  const properties = { a: {}, b: {} };
  assert.equal(changed({ properties, required: ["a"] }, { properties, required: ["a", "b"] }), [
    "t: the argument b is now required",
  ]);
  assert.equal(changed({}, { properties, required: ["a"] }), ["t: the argument a is now required"]);
  assert.equal(changed({ properties, required: ["a", "b"] }, { properties, required: ["b"] }), []);
  assert.equal(changed({ required: ["constructor"] }, { properties, required: [] }), []);
});

test("a removed argument breaks clients only if the tool allows no others", () => {
  const before = { properties: { a: {}, toString: {} } };
  const after = { properties: { a: {} } };
  assert.equal(changed(before, after), []);
  assert.equal(changed(before, { ...after, additionalProperties: true }), []);
  assert.equal(changed(before, { ...after, additionalProperties: false }), [
    "t: the argument toString was removed",
  ]);
});

test("arguments inside of arguments are compared, but not those of a new argument", () => {
  const filter = { type: "object", properties: { tag: {}, day: {} } };
  const strict = { ...filter, required: ["tag"] };
  assert.equal(changed({ properties: { filter } }, { properties: { filter: strict } }), [
    "t: the argument filter.tag is now required",
  ]);
  assert.equal(changed({}, { properties: { filter: strict } }), []);
});

test("a schema that is none counts as one without arguments", () => {
  for (const odd of [undefined, null, true, 7, [], { required: "a" }, { properties: [1] }])
    assert.equal(changed(odd, odd), []);
});
test.run();
