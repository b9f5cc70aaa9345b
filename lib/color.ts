import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { replaceFile } from "./atomic.ts";
import { confined, type Here } from "./confined.ts";
import { StateFileError } from "./errors.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";

export const COLORS = ["blue", "green"] as const;
export type Color = (typeof COLORS)[number];

/** Is this text exactly the name of a color? */
export const isColor = (text: string | undefined): text is Color => COLORS.some((color) => color === text);

/** Where the active color stands: in a record that a run goes by, and in the state file, for others to read. */
export type Places = Pick<Settings, "recordFile" | "activeColorFile" | "vaultPath" | "oauthDataPath">;

/** A color and white space; whatever is longer is none. */
const LONGEST_BYTES = 80;

/** Works in the folder of the state file, where containers can change every name at any instant. */
const besideStateFile = <T>(
  { activeColorFile, vaultPath, oauthDataPath }: Places,
  make: boolean,
  act: (here: Here, name: string) => T,
): T =>
  confined(dirname(activeColorFile), [vaultPath, oauthDataPath], make, (here) =>
    act(here, basename(activeColorFile)),
  );

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";

/** The color that a text names, with white space around it or none. Throws StateFileError. */
function colorIn(text: string, file: string, next: string): Color {
  const color = text.trim();
  if (isColor(color)) return color;
  throw new StateFileError(`${file} says ${JSON.stringify(text.slice(0, 80))}, neither blue nor green`, {
    next,
  });
}

/**
 * The color that the state file names; undefined when there is no file. Containers can write it: it is compared, and
 * never believed where there is a record. Throws StateFileError when it cannot be read or says anything else.
 */
export async function readStateFile(places: Places): Promise<Color | undefined> {
  const { activeColorFile } = places;
  const next = "A release or a rollback sets it right where it can; see what is in its place.";
  let content: Buffer | undefined;
  try {
    content = besideStateFile(places, false, (here, name) => here.read(name, LONGEST_BYTES));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new StateFileError(`Cannot read the state file ${activeColorFile}: ${reasonOf(error)}`, { next });
  }
  return content && colorIn(content.toString(), `The state file ${activeColorFile}`, next);
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/**
 * The color that was marked last, by the record; undefined when there is none yet.
 * Throws StateFileError when it cannot be read or says anything else: a guess could rebuild the color that serves.
 */
async function readRecord({ recordFile }: Places): Promise<Color | undefined> {
  const next =
    "Write the color that serves into it (the X-Loop-Color header of any answer names it), or remove it.";
  let content: string;
  try {
    content = await readFile(recordFile, "utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new StateFileError(`Cannot read the record of the active color ${recordFile}`, {
      details: String(error),
      next,
    });
  }
  return colorIn(content, `The record of the active color ${recordFile}`, next);
}

/**
 * The color that was marked last: by the record, and by the state file only where there is no record yet, as before the
 * first run. Undefined where neither says one. Throws StateFileError when the record cannot be read or says anything else.
 */
export const readMarked = async (places: Places): Promise<Color | undefined> =>
  (await readRecord(places)) ?? (await readStateFile(places).catch(() => undefined));

/** Spec `get_active_color`: the color that was marked last, blue when none was. Throws StateFileError. */
export const getActiveColor = async (places: Places): Promise<Color> => (await readMarked(places)) ?? "blue";

/**
 * Begins the record with what the state file says, or `otherwise` where it says nothing, if there is no record yet: from
 * then on no container decides what was marked. A state file that makes no sense counts as none, and is warned about.
 * Throws StateFileError.
 */
export async function beginRecord(
  { settings, log }: Pick<Stack, "settings" | "log">,
  otherwise?: Color,
): Promise<void> {
  if ((await readRecord(settings)) !== undefined) return;
  const published = await readStateFile(settings).catch((error) => {
    log.warn(reasonOf(error));
    return undefined;
  });
  const color = published ?? otherwise;
  if (color) await writeRecord(settings, color);
}

async function writeRecord({ recordFile }: Places, color: Color): Promise<void> {
  try {
    await replaceFile(recordFile, `${color}\n`);
  } catch (error) {
    throw new StateFileError(`Cannot write ${color} into the record of the active color ${recordFile}`, {
      details: String(error),
      next: "Make its folder writable (is the disk full or read-only?), or point STATE_DIR elsewhere.",
    });
  }
}

/** Spec `get_inactive_color`: the other color. */
export const getInactiveColor = (active: Color): Color => (active === "blue" ? "green" : "blue");

/**
 * Spec `mark_active`: writes the color into the record, atomically and durably, and then into the state file. Only the
 * record is gone by: a state file that cannot be written is a warning, or a container could block its own rollback.
 * With `vaultLost`, why the vault is not there, no state file is made in the empty folder that is left in its place.
 * Throws StateFileError when the record cannot be written.
 */
export async function markActive(
  stack: Pick<Stack, "settings" | "log">,
  color: Color,
  vaultLost?: string,
): Promise<void> {
  await writeRecord(stack.settings, color);
  if (vaultLost === undefined) publish(stack, color);
  else stack.log.warn(`the state file ${stack.settings.activeColorFile} was not written: ${vaultLost}`);
}

/** Writes the state file for others to read, and makes its folder when only that is missing. Never throws. */
function publish({ settings, log }: Pick<Stack, "settings" | "log">, color: Color): void {
  try {
    besideStateFile(settings, true, (here, name) => here.replace(name, `${color}\n`));
  } catch (error) {
    log.warn(`the state file ${settings.activeColorFile} was not written: ${reasonOf(error)}`);
  }
}

/** Sets the state file right where it does not say which color serves; what says otherwise is warned about. Never throws. */
export async function repairStateFile(stack: Stack, serving: Color): Promise<void> {
  const { settings, log } = stack;
  try {
    const published = await readStateFile(settings);
    if (published === serving) return;
    if (published) log.warn(`the state file means ${published}, but nginx serves ${serving}: set right`);
  } catch (error) {
    log.warn(`${reasonOf(error)}; nginx serves ${serving}: set right`);
  }
  await stack.step(
    "set the state file right",
    async () => publish(stack, serving),
    markCommands(stack, serving),
  );
}

/** What `mark_active` does, for a dry run to tell. */
export const markCommands = ({ settings }: Stack, color: Color): string[] => [
  `write ${color} into ${settings.recordFile} and ${settings.activeColorFile}`,
];
