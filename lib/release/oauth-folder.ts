import { UsageError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { isFolder } from "../settings-schema.ts";
import { makeFolder } from "../util/atomic.ts";

/** Creates the folder for auth's data, accessible to its owner only, if there is none, unless AUTH=off. Throws UsageError when it cannot. */
export async function createFolders(context: Context): Promise<void> {
  if (context.settings.api.auth === "on") await createOauthFolder(context);
}

async function createOauthFolder({ settings: { oauthDataPath }, change }: Context): Promise<void> {
  if (isFolder(oauthDataPath)) return;
  await change("create the OAuth data folder", () => makeOauthFolder(oauthDataPath), [
    `mkdir -m 700 ${oauthDataPath}`,
  ]);
}

/**
 * Creates it for a rollback to an API with auth, whatever the settings say. The rollback continues without it: only a new container
 * needs the folder.
 */
export async function createFoldersForRollback(context: Context): Promise<void> {
  await createOauthFolder(context).catch((error) => {
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
