import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolder, replaceFile } from "./atomic.ts";
import { StateFileError } from "./errors.ts";

export const COLORS = ["blue", "green"] as const;
export type Color = (typeof COLORS)[number];

/** Is this text exactly the name of a colour? */
export const isColor = (text: string | undefined): text is Color => COLORS.some((color) => color === text);

/**
 * Spec `get_active_color`: the colour that the state file names, blue when there is no file.
 * Throws StateFileError when the file cannot be read or says anything else: a guess could rebuild the colour that serves.
 */
export async function getActiveColor(stateFile: string): Promise<Color> {
  let content: string;
  try {
    content = await readFile(stateFile, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "blue";
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
