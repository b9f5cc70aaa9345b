import { readdir, readFile, stat } from "node:fs/promises";
import { isAbsolute, join, relative, sep } from "node:path";
import { replaceFile } from "./atomic.ts";
import { EmptyVaultError } from "./errors.ts";
import { readHistory } from "./history.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";
import { type Infer, z } from "./zod.ts";

/** What a vault has in it: files of its owner; only the folder that this tool makes; nothing at all. */
const Content = z.enum(["files", "our folder", "nothing"]);
type Content = "files" | "our folder" | "nothing";

/** Which folder it is on which device; as text, as both numbers may be longer than JSON's. */
const Place = z.object({ dev: z.string(), ino: z.string() });

const Noted = z.object({ vault: Content, place: Place.optional() });

/** What the vault had at the last mark. It lies outside of the vault: an unmounted one takes along what is in it. */
const noteFile = ({ stateDir }: Settings): string => join(stateDir, "vault.json");

/** The folder in the vault that this tool makes for the state file. */
function ownFolder({ vaultPath, activeColorFile }: Settings): string {
  const path = relative(vaultPath, activeColorFile);
  const [first = "", ...rest] = path.split(sep);
  return rest.length > 0 && first !== ".." && !isAbsolute(path) ? first : "_build";
}

/** What is in the vault now; undefined where this user may not look into it. Throws what the file system throws. */
async function contentOf(settings: Settings): Promise<Content | undefined> {
  let names: string[];
  try {
    names = await readdir(settings.vaultPath);
  } catch (error) {
    // A member of the docker group need not be able to read what the containers read as root.
    if (error instanceof Error && "code" in error && error.code === "EACCES") return undefined;
    throw error;
  }
  if (names.some((name) => name !== ownFolder(settings))) return "files";
  return names.length > 0 ? "our folder" : "nothing";
}

async function placeOf({ vaultPath }: Settings): Promise<Infer<typeof Place>> {
  const { dev, ino } = await stat(vaultPath, { bigint: true });
  return { dev: String(dev), ino: String(ino) };
}

/** What was noted at the last mark; undefined when nothing was yet, or it cannot be read. */
async function noted(settings: Settings): Promise<Infer<typeof Noted> | undefined> {
  try {
    return Noted.parse(JSON.parse(await readFile(noteFile(settings), "utf8")));
  } catch {
    return undefined;
  }
}

/** Before the first mark that notes it, the history tells: a release that was done has left its folder in the vault. */
async function before(settings: Settings): Promise<Content> {
  const runs = await readHistory(settings.historyFile);
  return runs.some(({ result }) => result === "done") ? "our folder" : "nothing";
}

/** Has a vault lost what it had? */
export const isLost = (had: Content, has: Content): boolean =>
  has === "nothing" ? had !== "nothing" : has === "our folder" && had === "files";

/** A vault that is not as releases left it. */
export interface Loss {
  /** In words. */
  finding: string;
  /** It is the very folder of the last mark, so it was emptied; else its volume may not be mounted. */
  mounted: boolean;
}

/** Whether the vault is empty although it was used for releases, or cannot be read; undefined when all is well. Never throws. */
export async function vaultLoss(settings: Settings): Promise<Loss | undefined> {
  try {
    const has = await contentOf(settings);
    const note = await noted(settings);
    if (has === undefined || !isLost(note?.vault ?? (await before(settings)), has)) return undefined;
    const { dev, ino } = await placeOf(settings);
    return {
      finding: `The vault ${settings.vaultPath} is empty, but was used for releases before`,
      // A number alone says little: a device may have another one after each restart, or that of another.
      mounted: note?.place !== undefined && note.place.dev === dev && note.place.ino === ino,
    };
  } catch (error) {
    return {
      finding: `The vault ${settings.vaultPath} cannot be read: ${error instanceof Error ? error.message : error}`,
      mounted: false,
    };
  }
}

/**
 * Sees that the vault is the one that releases used before. An unmounted volume leaves an empty folder in its place: the API
 * would find a vault there, and clients an empty one. One that is mounted and was emptied is only warned about: a container
 * that was broken into can empty it, and would block the way back. Throws EmptyVaultError.
 */
export const checkVault = (stack: Stack): Promise<void> =>
  stack.look("look for the vault", async () => {
    const { settings, options, log } = stack;
    const loss = await vaultLoss(settings);
    if (!loss) return;
    const { finding, mounted } = loss;
    if (options.acceptEmptyVault) return log.warn(`${finding}: accepted, as --accept-empty-vault says`);
    if (mounted) return log.warn(`${finding}: it is mounted as before, so somebody has emptied it. Going on`);
    throw new EmptyVaultError(finding, {
      details: "An empty folder is what is left where a volume is not mounted.",
      next: "Mount the volume and run this again. If the vault is meant to be empty, run it with --accept-empty-vault.",
    });
  });

/**
 * Notes what the vault has at a mark, and which folder it is; one that has lost something since the run looked at it is noted only when that was
 * accepted. Never throws: the release stands.
 */
export async function rememberVault({ settings, options, log }: Stack): Promise<void> {
  try {
    const vault = await contentOf(settings);
    const had = await noted(settings);
    if (!vault || (had && isLost(had.vault, vault) && !options.acceptEmptyVault)) return;
    const place = await placeOf(settings);
    await replaceFile(noteFile(settings), `${JSON.stringify({ vault, place })}\n`);
  } catch (error) {
    log.warn(`could not record what the vault contains: ${error}`);
  }
}

/**
 * Notes, where nothing was noted yet, that releases used the vault before: they have left their folder in it. Throws what
 * the file system throws.
 */
export async function assumeVaultUsed(settings: Settings): Promise<void> {
  if (await noted(settings)) return;
  await replaceFile(noteFile(settings), `${JSON.stringify({ vault: "our folder" })}\n`);
}
