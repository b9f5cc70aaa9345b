import { readFile, writeFile } from "node:fs/promises";

/**
 * Replaces a pattern in a file. Throws if nothing matches: a test or benchmark of the changed file would show what the
 * unchanged one does.
 */
export async function rewrite(file: string, pattern: RegExp, by: string): Promise<void> {
  const text = await readFile(file, "utf8");
  if (text.search(pattern) === -1) throw new Error(`${pattern} matches nothing in ${file}`);
  await writeFile(file, text.replace(pattern, by));
}
