import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { type Color, isColor } from "../color.ts";
import { StateFileError } from "../errors.ts";
import { exposedFolders } from "../exposure.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { replaceFile } from "../util/atomic.ts";
import { type ConfinedFolder, confined } from "../util/confined.ts";

/** Where the active color is written: the color record, which runs trust, and the state file, for others to read. */
export type StateFiles = Pick<Settings, "recordFile" | "activeColorFile" | "vaultPath" | "oauthDataPath">;

/** The name of a color and some white space. */
const LONGEST_BYTES = 80;

/** Works in the folder of the state file, where containers can change every name at any instant. */
const besideStateFile = <T>(
  files: StateFiles,
  make: boolean,
  act: (folder: ConfinedFolder, name: string) => T,
): T =>
  confined(dirname(files.activeColorFile), exposedFolders(files), make, (folder) =>
    act(folder, basename(files.activeColorFile)),
  );

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The color that a text names. Throws StateFileError. */
function colorIn(text: string, file: string, next: string): Color {
  const color = text.trim();
  if (isColor(color)) return color;
  throw new StateFileError(`${file} says ${JSON.stringify(text.slice(0, 80))}, neither blue nor green`, {
    next,
  });
}

/**
 * The color in the state file; undefined when there is no file. Containers can write it, so it is only compared, and never
 * trusted once a color record exists. Throws StateFileError when it cannot be read or names no color.
 */
export async function readStateFile(files: StateFiles): Promise<Color | undefined> {
  const { activeColorFile } = files;
  const next = "A release or a rollback repairs it if it can; see what is in its place.";
  let content: Buffer | undefined;
  try {
    content = besideStateFile(files, false, (folder, name) => folder.read(name, LONGEST_BYTES));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new StateFileError(`Cannot read the state file ${activeColorFile}: ${messageOf(error)}`, { next });
  }
  return content && colorIn(content.toString(), `The state file ${activeColorFile}`, next);
}

/**
 * The color in the color record; undefined when there is none yet. Throws StateFileError when it cannot be read or names no
 * color, because a wrong guess would rebuild the serving color.
 */
async function readColorRecord({ recordFile }: StateFiles): Promise<Color | undefined> {
  const next =
    "Write the serving color to it (the X-Loop-Color header of any response names it), or remove the file.";
  let content: string;
  try {
    content = await readFile(recordFile, "utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new StateFileError(`Cannot read the color record ${recordFile}`, { details: String(error), next });
  }
  return colorIn(content, `The color record ${recordFile}`, next);
}

/**
 * The color that was marked last: from the color record, or from the state file before the first run. Undefined when neither
 * names one. Throws StateFileError for an unreadable color record.
 */
export const readMarked = async (files: StateFiles): Promise<Color | undefined> =>
  (await readColorRecord(files)) ?? (await readStateFile(files).catch(() => undefined));

/** Spec `get_active_color`: the color that was marked last; blue when none was. Throws StateFileError. */
export const getActiveColor = async (files: StateFiles): Promise<Color> =>
  (await readMarked(files)) ?? "blue";

/**
 * Creates the color record from the state file, or with `otherwise`, if there is none yet. From then on no container decides
 * which color was marked. An invalid state file counts as missing, with a warning. Throws StateFileError.
 */
export async function initializeColorRecord(
  { settings, log }: Pick<Context, "settings" | "log">,
  otherwise?: Color,
): Promise<void> {
  if ((await readColorRecord(settings)) !== undefined) return;
  const published = await readStateFile(settings).catch((error) => {
    log.warn(messageOf(error));
    return undefined;
  });
  const color = published ?? otherwise;
  if (color) await writeColorRecord(settings, color);
}

async function writeColorRecord({ recordFile }: StateFiles, color: Color): Promise<void> {
  try {
    await replaceFile(recordFile, `${color}\n`);
  } catch (error) {
    throw new StateFileError(`Cannot write ${color} to the color record ${recordFile}`, {
      details: String(error),
      next: "Make its folder writable (is the disk full or read-only?), or point STATE_DIR elsewhere.",
    });
  }
}

/**
 * Writes a color to the color record, atomically and durably, then to the state file. A state file that cannot be written is
 * only a warning; otherwise a container could block its own rollback. `vaultLost` says why the vault is unavailable; then no
 * state file is created in its empty mount point. Throws StateFileError when the record cannot be written.
 */
export async function writeActiveColor(
  context: Pick<Context, "settings" | "log">,
  color: Color,
  vaultLost?: string,
): Promise<void> {
  await writeColorRecord(context.settings, color);
  if (vaultLost === undefined) publish(context, color);
  else context.log.warn(`the state file ${context.settings.activeColorFile} was not written: ${vaultLost}`);
}

/** Writes the state file, and creates its folder if only that is missing. Never throws. */
function publish({ settings, log }: Pick<Context, "settings" | "log">, color: Color): void {
  try {
    besideStateFile(settings, true, (folder, name) => folder.replace(name, `${color}\n`));
  } catch (error) {
    log.warn(`the state file ${settings.activeColorFile} was not written: ${messageOf(error)}`);
  }
}

/** Corrects a state file that does not name the serving color, with a warning if it names the other. Never throws. */
export async function repairStateFile(context: Context, serving: Color): Promise<void> {
  const { settings, log } = context;
  try {
    const published = await readStateFile(settings);
    if (published === serving) return;
    if (published) log.warn(`the state file says ${published}, but nginx serves ${serving}: correcting it`);
  } catch (error) {
    log.warn(`${messageOf(error)}; nginx serves ${serving}: correcting it`);
  }
  await context.change("correct the state file", async () => publish(context, serving), [
    `write ${serving} to ${settings.activeColorFile}`,
  ]);
}
