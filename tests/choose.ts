import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The folders of test files, in the order in which they run. */
export const KINDS = ["unit", "engine", "load", "soak"];

const SELECTED: Record<string, string[]> = {
  "": ["unit", "engine", "load"],
  "--unit": ["unit"],
  "--soak": ["soak"],
};

const ENDING = ".test.ts";

export interface TestFile {
  kind: string;
  /** The displayed name, such as engine/rollback. */
  name: string;
  path: string;
}

const linesOf = (path: string): number => readFileSync(path, "utf8").split("\n").length;

/** The seconds that files take, from seconds.json, in a run of all files on two cores. Only their order matters. */
export function knownSeconds(directory: string): Record<string, number> {
  const file = join(directory, "seconds.json");
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
}

/**
 * All test files, in the order in which they start. Within a kind, those that take longest start first, so that no core idles
 * at the end. A file without known seconds starts before them, and the one with more lines before the other.
 */
export function listTests(directory: string): TestFile[] {
  const seconds = knownSeconds(directory);
  return KINDS.flatMap((kind) => {
    const folder = join(directory, kind);
    const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith(ENDING)) : [];
    return files
      .map((file) => ({ kind, name: `${kind}/${file.slice(0, -ENDING.length)}`, path: join(folder, file) }))
      .map((file) => ({
        file,
        seconds: seconds[file.name] ?? Number.MAX_VALUE,
        lines: linesOf(file.path),
      }))
      .sort((a, b) => b.seconds - a.seconds || b.lines - a.lines)
      .map(({ file }) => file);
  });
}

/** Returns the test files that the command line selects, or an error message. */
export function choose(args: string[], all: TestFile[]): TestFile[] | string {
  const options = args.filter((arg) => arg.startsWith("-"));
  const kinds = options.length > 1 ? undefined : SELECTED[options[0] ?? ""];
  if (!kinds)
    return `Not understood: ${options.join(" ")}\nUsage: tests/run.mts [--unit | --soak] [pattern ...]`;
  const patterns = args
    .filter((arg) => !arg.startsWith("-"))
    .map((arg) => arg.replace(/^(\.\/)?tests\//, "")); // paths from shell completion
  const matching = (pattern: string) => all.filter(({ name }) => (name + ENDING).includes(pattern));
  const wanted = all.filter(({ kind }) => kinds.includes(kind));

  for (const pattern of patterns) {
    const found = matching(pattern);
    if (found.some((file) => wanted.includes(file))) continue;
    if (found.length > 0 && found.every(({ kind }) => kind === "soak"))
      return `Soak tests run on their own: npm run soak -- ${pattern}`;
    const names = all.map(({ name }) => `\n  ${name}`).join("");
    return `No test file in ${kinds.join(", ")} has "${pattern}" in its name. There are:${names}`;
  }
  const chosen = wanted.filter(
    (file) => patterns.length === 0 || patterns.some((pattern) => matching(pattern).includes(file)),
  );
  return chosen.length > 0 ? chosen : `There are no test files in ${kinds.join(", ")}.`;
}
