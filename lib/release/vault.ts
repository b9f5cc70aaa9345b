import { readdir, readFile, stat } from "node:fs/promises";
import { isAbsolute, join, relative, sep } from "node:path";
import { EmptyVaultError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { readHistory } from "../run/history.ts";
import type { Settings } from "../settings.ts";
import { replaceFile } from "../util/atomic.ts";
import { type Infer, z } from "../util/zod.ts";

/** What a vault contains: files of its owner; only the folder that this tool creates; nothing. */
const Content = z.enum(["files", "our folder", "nothing"]);
type Content = "files" | "our folder" | "nothing";

/** The device and inode of the vault, as text: both can exceed JSON's numbers. */
const Place = z.object({ dev: z.string(), ino: z.string() });

const VaultRecord = z.object({ vault: Content, place: Place.optional() });

type WithVault = Settings & { vaultPath: string };

/** With VAULT_PATH=none there is nothing to check or to record. */
const hasVault = (settings: Settings): settings is WithVault => settings.vaultPath !== undefined;

/** The record of what the vault contained at the last mark. It lies outside the vault, which may be unmounted. */
const recordFile = ({ stateDir }: Settings): string => join(stateDir, "vault.json");

/** The folder in the vault that this tool creates for the state file. */
function ownFolder({ vaultPath, activeColorFile }: WithVault): string {
  const path = relative(vaultPath, activeColorFile);
  const [first = "", ...rest] = path.split(sep);
  return rest.length > 0 && first !== ".." && !isAbsolute(path) ? first : "_build";
}

/** What the vault contains; undefined when this user cannot read it. Throws what the file system throws. */
async function contentOf(settings: WithVault): Promise<Content | undefined> {
  let names: string[];
  try {
    names = await readdir(settings.vaultPath);
  } catch (error) {
    // A member of the docker group may not be allowed to read what the containers read as root.
    if (error instanceof Error && "code" in error && error.code === "EACCES") return undefined;
    throw error;
  }
  if (names.some((name) => name !== ownFolder(settings))) return "files";
  return names.length > 0 ? "our folder" : "nothing";
}

async function placeOf({ vaultPath }: WithVault): Promise<Infer<typeof Place>> {
  const { dev, ino } = await stat(vaultPath, { bigint: true });
  return { dev: String(dev), ino: String(ino) };
}

/** The record of the last mark; undefined when there is none, or it cannot be read. */
async function readRecord(settings: Settings): Promise<Infer<typeof VaultRecord> | undefined> {
  try {
    return VaultRecord.parse(JSON.parse(await readFile(recordFile(settings), "utf8")));
  } catch {
    return undefined;
  }
}

/** What an older version left without a record: a successful release in the history has left its folder in the vault. */
async function before(settings: Settings): Promise<Content> {
  const runs = await readHistory(settings.historyFile);
  return runs.some(({ result }) => result === "done") ? "our folder" : "nothing";
}

/** Has a vault lost what it contained? */
export const isLost = (had: Content, has: Content): boolean =>
  has === "nothing" ? had !== "nothing" : has === "our folder" && had === "files";

/** A vault that is not as the last release left it. */
export interface Loss {
  /** In words. */
  finding: string;
  /** It is the same folder as at the last mark, so it was emptied; otherwise its volume may not be mounted. */
  mounted: boolean;
}

/** What is wrong when the vault is empty although releases used it, or cannot be read; undefined otherwise. Never throws. */
export async function vaultLoss(settings: Settings): Promise<Loss | undefined> {
  if (!hasVault(settings)) return undefined;
  try {
    const has = await contentOf(settings);
    const note = await readRecord(settings);
    if (has === undefined || !isLost(note?.vault ?? (await before(settings)), has)) return undefined;
    const { dev, ino } = await placeOf(settings);
    return {
      finding: `The vault ${settings.vaultPath} is empty, but earlier releases used it`,
      // Both numbers must match: a device number can change, or be reused, after a restart.
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
 * Checks that the vault is the one that releases used before. An unmounted volume leaves an empty folder in its place, and
 * the API would serve that. A vault that is mounted but was emptied is only a warning; otherwise a compromised container could
 * empty it to block a rollback. Throws EmptyVaultError.
 */
export const checkVault = (context: Context): Promise<void> =>
  context.inspect("check the vault", async () => {
    const { settings, options, log } = context;
    const loss = await vaultLoss(settings);
    if (!loss) return;
    const { finding, mounted } = loss;
    if (options.acceptEmptyVault) return log.warn(`${finding}: accepted because of --accept-empty-vault`);
    if (mounted)
      return log.warn(`${finding}: it is the same folder as before, so somebody emptied it. Continuing`);
    throw new EmptyVaultError(finding, {
      details: "A volume that is not mounted leaves an empty folder in its place.",
      next: "Mount the volume and run this again. If the vault is supposed to be empty, add --accept-empty-vault.",
    });
  });

/**
 * Records what the vault contains at a mark, and which folder it is. A vault that has lost its content since the check is
 * recorded only with --accept-empty-vault. Never throws: the release stands.
 */
export async function recordVault({ settings, options, log }: Context): Promise<void> {
  if (!hasVault(settings)) return;
  try {
    const vault = await contentOf(settings);
    const had = await readRecord(settings);
    if (!vault || (had && isLost(had.vault, vault) && !options.acceptEmptyVault)) return;
    const place = await placeOf(settings);
    await replaceFile(recordFile(settings), `${JSON.stringify({ vault, place })}\n`);
  } catch (error) {
    log.warn(`could not record what the vault contains: ${error}`);
  }
}

/** Records, if there is no record yet, that releases used the vault and left their folder. Throws what the file system throws. */
export async function assumeVaultUsed(settings: Settings): Promise<void> {
  if (await readRecord(settings)) return;
  await replaceFile(recordFile(settings), `${JSON.stringify({ vault: "our folder" })}\n`);
}
