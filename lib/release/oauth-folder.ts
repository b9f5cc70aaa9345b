import { UsageError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { isFolder } from "../settings-schema.ts";
import { makeFolder } from "../util/atomic.ts";

/** Creates the folder for auth's data, accessible to its owner only, if there is none, unless AUTH=off. Throws UsageError when it cannot. */
export async function createFolders({ settings, change }: Context): Promise<void> {
  const { oauthDataPath, api } = settings;
  if (api.auth === "off" || isFolder(oauthDataPath)) return;
  await change("create the OAuth data folder", () => makeOauthFolder(oauthDataPath), [
    `mkdir -m 700 ${oauthDataPath}`,
  ]);
}

/** The same for a rollback, which continues without: only recreating auth needs the folder. */
export async function createFoldersForRollback(context: Context): Promise<void> {
  await createFolders(context).catch((error) => {
    if (!(error instanceof UsageError)) throw error;
    context.log.warn(`${error.message}; the rollback continues without it: ${error.details}`);
  });
}

async function makeOauthFolder(path: string): Promise<void> {
  try {
    await makeFolder(path, 0o700);
  } catch (error) {
    throw new UsageError(`Cannot create the folder ${path} (OAUTH_DATA_PATH)`, {
      details: String(error),
      next: "Create its parent folder, or point OAUTH_DATA_PATH elsewhere; nothing was changed.",
    });
  }
}
