import { z } from "../util/zod.ts";
import type { Excerpt } from "./excerpt.ts";

/** What a comparison reads of a tool. */
export interface ListedTool {
  name: string;
  inputSchema: unknown;
}

/** What differs between the tools of two servers. */
export interface Comparison {
  /** Names of tools. */
  added: readonly string[];
  removed: readonly string[];
  /** Arguments that make calls fail which worked before. `argument` is a path, such as `filter.tag`. */
  changed: readonly { tool: string; argument: string; how: "is now required" | "was removed" }[];
}

/** The part of a JSON schema that is compared. Anything else counts as a schema without arguments. */
const Schema = z
  .looseObject({
    properties: z.record(z.string(), z.unknown()).default({}),
    required: z.array(z.string()).default([]),
    additionalProperties: z.unknown().optional(),
  })
  .catch({ properties: {}, required: [], additionalProperties: undefined });

type Change = Omit<Comparison["changed"][number], "tool">;

/**
 * An argument that was not required before, or that is gone although the schema allows no others. Also inside of arguments that
 * are objects themselves. References, lists and alternatives (`$ref`, `items`, `anyOf`) are not compared.
 */
function changedArguments(before: unknown, after: unknown, path = ""): Change[] {
  const [old, current] = [Schema.parse(before), Schema.parse(after)];
  const required = current.required
    .filter((name) => !old.required.includes(name))
    .map((name): Change => ({ argument: path + name, how: "is now required" }));
  const names = Object.keys(old.properties);
  const removed = names
    .filter((name) => current.additionalProperties === false && !Object.hasOwn(current.properties, name))
    .map((name): Change => ({ argument: path + name, how: "was removed" }));
  const inside = names
    .filter((name) => Object.hasOwn(current.properties, name))
    .flatMap((name) => changedArguments(old.properties[name], current.properties[name], `${path}${name}.`));
  return [...required, ...removed, ...inside];
}

/** Compares the tools of the serving color with those of the new one. */
export function compareTools(before: readonly ListedTool[], after: readonly ListedTool[]): Comparison {
  const [old, current] = [before, after].map(
    (tools) => new Map(tools.map(({ name, inputSchema }) => [name, inputSchema])),
  ) as [Map<string, unknown>, Map<string, unknown>];
  return {
    added: [...current.keys()].filter((name) => !old.has(name)),
    removed: [...old.keys()].filter((name) => !current.has(name)),
    changed: [...old].flatMap(([tool, schema]) =>
      current.has(tool)
        ? changedArguments(schema, current.get(tool)).map((change) => ({ tool, ...change }))
        : [],
    ),
  };
}

/** Names in a line of output; more than this would bury it. */
const MOST_NAMES = 20;

/** One line such as `tools: 14 (+ search_notes, − move_note)`. */
export function describeTools(
  tools: readonly ListedTool[],
  comparison: Comparison | undefined,
  excerpt: Excerpt,
): string {
  const count = `tools: ${new Set(tools.map(({ name }) => name)).size}`;
  if (!comparison) return count;
  const { added, removed } = comparison;
  const names = [
    ...added.map((name) => `+ ${excerpt(name)}`),
    ...removed.map((name) => `− ${excerpt(name)}`),
  ];
  if (names.length === 0) return `${count} (none added, none removed)`;
  const more = names.length - MOST_NAMES;
  return `${count} (${names.slice(0, MOST_NAMES).join(", ")}${more > 0 ? `, and ${more} more` : ""})`;
}

/** What breaks clients of the serving color, one line each; of a very long list, only the beginning. */
export function incompatibilities({ removed, changed }: Comparison, excerpt: Excerpt): string[] {
  const lines = [
    ...removed.slice(0, MOST_NAMES).map((name) => `${excerpt(name)}: the tool was removed`),
    ...changed
      .slice(0, MOST_NAMES)
      .map(({ tool, argument, how }) => `${excerpt(tool)}: the argument ${excerpt(argument)} ${how}`),
  ];
  const more = removed.length + changed.length - lines.length;
  return more > 0 ? [...lines, `and ${more} more`] : lines;
}
