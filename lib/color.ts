import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolder, replaceFile } from "./atomic.ts";
import { StateFileError } from "./errors.ts";
import type { Stack } from "./stack.ts";

export const COLORS = ["blue", "green"] as const;
export type Color = (typeof COLORS)[number];

/** Is this text exactly the name of a colour? */
export const isColor = (text: string | undefined): text is Color => COLORS.some((color) => color === text);

/**
 * The colour that the state file names; undefined when there is no file.
 * Throws StateFileError when the file cannot be read or says anything else: a guess could rebuild the colour that serves.
 */
export async function readStateFile(stateFile: string): Promise<Color | undefined> {
  let content: string;
  try {
    content = await readFile(stateFile, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new StateFileError(`Cannot read the state file ${stateFile}`, {
      details: String(error),
      next: "Make it a readable file that says blue or green, or point ACTIVE_COLOR_FILE elsewhere.",
    });
  }
  const color = content.trim();
  if (isColor(color)) return color;
  throw new StateFileError(
    `The state file ${stateFile} says ${JSON.stringify(content.slice(0, 80))}, neither blue nor green`,
    {
      next: "Write the color that serves into it (the X-Loop-Color header of any answer names it), or remove it.",
    },
  );
}

/** Spec `get_active_color`: the colour that the state file names, blue when there is no file. Throws StateFileError. */
export const getActiveColor = async (stateFile: string): Promise<Color> =>
  (await readStateFile(stateFile)) ?? "blue";

/** Spec `get_inactive_color`: the other colour. */
export const getInactiveColor = (active: Color): Color => (active === "blue" ? "green" : "blue");

/** Spec `mark_active`: writes the state file atomically and durably; makes its folder when only that is missing. Throws StateFileError. */
export async function markActive(stateFile: string, color: Color): Promise<void> {
  try {
    await makeFolder(dirname(stateFile));
    await replaceFile(stateFile, `${color}\n`);
  } catch (error) {
    throw new StateFileError(`Cannot write ${color} into the state file ${stateFile}`, {
      details: String(error),
      next: "Make its folder writable (is the volume mounted read-only, or full?), or point ACTIVE_COLOR_FILE elsewhere.",
    });
  }
}

/** What `mark_active` does, for a dry run to tell. */
export const markCommands = ({ settings }: Stack, color: Color): string[] => [
  `write ${color} into ${settings.activeColorFile}`,
];
