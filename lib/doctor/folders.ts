import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { dirname } from "node:path";
import { StateFileError, UsageError } from "../errors.ts";
import { exposureOf } from "../exposure.ts";
import { checkHooks } from "../release/hooks.ts";
import { checkSharedFolders } from "../release/shared-folders.ts";
import { getActiveColor } from "../release/state-file.ts";
import { vaultLoss } from "../release/vault.ts";
import type { Context } from "../run/context.ts";
import { checkStateDir } from "../run/state-dir.ts";
import { isFolder } from "../settings-schema.ts";
import { ok, problem, type Verdict, warning } from "./finding.ts";

/** The folder itself, or the nearest existing one above it. */
const existing = (path: string): string => (existsSync(path) ? path : existing(dirname(path)));

/** Why this user cannot write to a folder, or create it; undefined when it is possible. */
function whyNotWritable(folder: string): string | undefined {
  try {
    accessSync(existing(folder), constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** Throws UsageError when a run would not trust it, StateFileError when it cannot use it. */
export async function checkStateFolder({ settings }: Context): Promise<Verdict> {
  const { stateDir } = settings;
  checkStateDir(settings);
  const failure = whyNotWritable(stateDir);
  if (failure !== undefined)
    throw new StateFileError(`Cannot use the state folder ${stateDir}`, {
      details: failure,
      next: "Make it writable for this user, or point STATE_DIR elsewhere.",
    });
  await getActiveColor(settings);
  return ok(existsSync(stateDir) ? stateDir : `${stateDir}, which the first run creates`);
}

/** The vault as the API needs it. */
export async function checkVault({ settings }: Context): Promise<Verdict> {
  const { vaultPath, oauthDataPath } = settings;
  if (vaultPath === undefined) return ok("none: VAULT_PATH=none");
  if (!isFolder(vaultPath))
    return problem(
      `the vault ${vaultPath} does not exist`,
      "Mount its volume, or point VAULT_PATH to the folder.",
    );
  const isOneInsideTheOther =
    exposureOf(oauthDataPath, { vaultPath, oauthDataPath: vaultPath }) ??
    exposureOf(vaultPath, { vaultPath: oauthDataPath, oauthDataPath });
  if (isOneInsideTheOther)
    return warning(
      `the vault ${vaultPath} and OAUTH_DATA_PATH (${oauthDataPath}) overlap: the API can change auth's data`,
      "Point OAUTH_DATA_PATH to a folder of its own.",
    );
  const loss = await vaultLoss(settings);
  if (loss && !loss.mounted)
    return problem(
      loss.finding,
      "Mount its volume. If the vault is supposed to be empty, release once with --accept-empty-vault.",
    );
  if (loss)
    return warning(
      `${loss.finding}: it is the same folder as before, so somebody emptied it`,
      "Find out who did it, and restore the files.",
    );
  return looksEmpty(vaultPath)
    ? warning(
        `the vault ${vaultPath} is empty`,
        "Mount its volume. If it is supposed to be empty, there is nothing to do.",
      )
    : ok(vaultPath);
}

/** A folder that this user cannot read is not known to be empty: the containers read it as root. */
function looksEmpty(folder: string): boolean {
  try {
    return readdirSync(folder).length === 0;
  } catch {
    return false;
  }
}

/** Throws UsageError when a release could not create the folder. */
export async function checkOAuthData({ settings: { api, oauthDataPath } }: Context): Promise<Verdict> {
  if (api.auth === "off") return ok("none: AUTH=off");
  if (isFolder(oauthDataPath)) return ok(oauthDataPath);
  const failure = existsSync(oauthDataPath) ? "it is not a folder" : whyNotWritable(oauthDataPath);
  if (failure !== undefined)
    throw new UsageError(`Cannot create the folder ${oauthDataPath} (OAUTH_DATA_PATH)`, {
      details: failure,
      next: "Create its parent folder, or point OAUTH_DATA_PATH elsewhere.",
    });
  return ok(`${oauthDataPath}, which the first release creates`);
}

/** Throws UsageError when an engine in a VM does not see the folders. */
export async function checkShared(context: Context): Promise<Verdict> {
  await checkSharedFolders(context);
  return ok("the engine sees them");
}

/** Throws UsageError for a hook that a run would not run. */
export async function checkHookFiles(context: Context): Promise<Verdict> {
  await checkHooks(context);
  return ok(context.settings.hooksPath ?? "none");
}
