import { readdir, readFile } from "node:fs/promises";
import { isAbsolute, join, relative, sep } from "node:path";
import { replaceFile } from "./atomic.ts";
import { EmptyVaultError } from "./errors.ts";
import { readHistory } from "./history.ts";
import type { Settings } from "./settings.ts";
import type { Stack } from "./stack.ts";
import { z } from "./zod.ts";

/** What a vault has in it: files of its owner; only the folder that this tool makes; nothing at all. */
const Content = z.enum(["files", "our folder", "nothing"]);
type Content = "files" | "our folder" | "nothing";

const Noted = z.object({ vault: Content });

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

/** What was noted at the last mark; undefined when nothing was yet, or it cannot be read. */
async function noted(settings: Settings): Promise<Content | undefined> {
  try {
    return Noted.parse(JSON.parse(await readFile(noteFile(settings), "utf8"))).vault;
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

/** Whether the vault is empty although it was used for releases, in words; undefined when all is well. Never throws. */
export async function emptyVault(settings: Settings): Promise<string | undefined> {
  try {
    const has = await contentOf(settings);
    if (has === undefined || !isLost((await noted(settings)) ?? (await before(settings)), has))
      return undefined;
    return `The vault ${settings.vaultPath} is empty, but was used for releases before`;
  } catch (error) {
    return `The vault ${settings.vaultPath} cannot be read: ${error instanceof Error ? error.message : error}`;
  }
}

/**
 * Sees that the vault is the one that releases used before. An unmounted volume leaves an empty folder in its place: the API
 * would find a vault there, and clients an empty one. Throws EmptyVaultError.
 */
export const checkVault = (stack: Stack): Promise<void> =>
  stack.look("look for the vault", async () => {
    const { settings, options, log } = stack;
    const finding = await emptyVault(settings);
    if (!finding) return;
    if (options.acceptEmptyVault) return log.warn(`${finding}: accepted, as --accept-empty-vault says`);
    throw new EmptyVaultError(finding, {
      details: "An empty folder is what is left where a volume is not mounted.",
      next: "Mount the volume and run this again. If the vault is meant to be empty, run it with --accept-empty-vault.",
    });
  });

/**
 * Notes what the vault has at a mark; one that has lost something since the run looked at it is noted only when that was
 * accepted. Never throws: the release stands.
 */
export async function rememberVault({ settings, options, log }: Stack): Promise<void> {
  try {
    const vault = await contentOf(settings);
    const had = await noted(settings);
    if (!vault || (had && isLost(had, vault) && !options.acceptEmptyVault)) return;
    await replaceFile(noteFile(settings), `${JSON.stringify({ vault })}\n`);
  } catch (error) {
    log.warn(`what the vault has was not noted: ${error}`);
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
