import { statfs } from "node:fs/promises";
import { shellCommand } from "../docker/cli.ts";
import { dataFolder } from "../docker/engine.ts";
import { mountArgs, mountProblem } from "../docker/mounts.ts";
import { UsageError } from "../errors.ts";
import { CONFIGURATION } from "../nginx/workers.ts";
import type { Context } from "../run/context.ts";

/** nginx's configuration file, which is in nginx's folder of every checkout. */
const FILE = CONFIGURATION.split("/").at(-1) ?? "";

/** Is the engine's data folder on this host? One that this user cannot inspect is. */
async function isOnThisHost(folder: string): Promise<boolean> {
  try {
    await statfs(folder);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ENOENT");
  }
}

/**
 * Checks that an engine in a VM (Docker Desktop, colima) sees the folders that containers mount: outside its shared folders,
 * containers would fail to start or find empty folders. An engine on this host sees all of them, and is not asked. It is a
 * change, because it starts a short-lived container. Returns the engine's data folder. Throws UsageError, DeadlineError,
 * InterruptedError.
 */
export async function checkSharedFolders(context: Context): Promise<string> {
  const { nginxFolder, vaultPath, oauthDataPath, api } = context.settings;
  const data = await dataFolder(context);
  if (await isOnThisHost(data)) return data;
  const folders = [
    nginxFolder,
    ...(vaultPath === undefined ? [] : [vaultPath]),
    ...(api.auth === "on" ? [oauthDataPath] : []),
  ];
  const check = async (): Promise<void> => {
    const problem = await mountProblem(context, folders, FILE);
    if (problem === undefined) return;
    throw new UsageError("Docker runs in a VM, and not all folders are shared with it", {
      details: [...folders, problem].join("\n"),
      next: "Share these folders with Docker (Docker Desktop: Settings, Resources, File sharing; colima: see docs/macos.md), or move them below your home folder, and run this again; nothing was started.",
    });
  };
  await context.change("check the shared folders", check, [
    shellCommand(context, mountArgs(context, folders, FILE)),
  ]);
  return data;
}
