import { realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { isInside } from "./util/confined.ts";

/** A path with its symbolic links resolved, as far as it exists. */
function realPath(path: string): string {
  try {
    return realpathSync.native(path); // with the upper and lower case of the disk, which macOS ignores in a path
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}

/**
 * The folders that containers can write to. With AUTH=off, OAUTH_DATA_PATH still is one: an older container may mount it.
 */
export interface Mounts {
  vaultPath: string | undefined;
  oauthDataPath: string;
}

/** The same as a list. */
export const exposedFolders = ({ vaultPath, oauthDataPath }: Mounts): string[] =>
  vaultPath === undefined ? [oauthDataPath] : [vaultPath, oauthDataPath];

/** Says in words which of these folders contains a path, links resolved; undefined when none does. */
export function exposureOf(path: string, { vaultPath, oauthDataPath }: Mounts): string | undefined {
  const mounts = Object.entries({ VAULT_PATH: vaultPath, OAUTH_DATA_PATH: oauthDataPath });
  const found = mounts.find(
    ([, folder]) =>
      folder !== undefined && (isInside(path, folder) || isInside(realPath(path), realPath(folder))),
  );
  return found && `containers can write to it, because it is inside ${found[0]} (${found[1]})`;
}
