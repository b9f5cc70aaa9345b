import { statfs } from "node:fs/promises";
import { dataFolder } from "../docker/engine.ts";
import { listMounted } from "../docker/mounts.ts";
import { UsageError } from "../errors.ts";
import { CONFIGURATION } from "../nginx/workers.ts";
import type { Context } from "../run/context.ts";

/**
 * Checks that an engine in a VM (Docker Desktop, colima) sees the folders that containers mount: outside its shared folders,
 * containers would fail to start or find empty folders. An engine on this host sees all of them, and is not asked.
 * Throws UsageError, DeadlineError, InterruptedError.
 */
export async function checkSharedFolders(context: Context): Promise<void> {
  const { nginxFolder, vaultPath, oauthDataPath } = context.settings;
  const isLocal = await statfs(await dataFolder(context)).then(
    () => true,
    () => false,
  );
  if (isLocal) return;
  const folders = [nginxFolder, vaultPath, oauthDataPath];
  await context.inspect("check the shared folders", async () => {
    const { names, problem } = await listMounted(context, folders);
    const configuration = CONFIGURATION.split("/").at(-1) ?? "";
    if (problem === undefined && names.includes(configuration)) return;
    throw new UsageError("Docker runs in a VM, and not all folders are shared with it", {
      details: [...folders, problem ?? `In the VM, ${nginxFolder} does not contain ${configuration}.`].join(
        "\n",
      ),
      next: "Share these folders with Docker (Docker Desktop: Settings, Resources, File sharing; colima: --mount), or move them below your home folder, and run this again; nothing was started.",
    });
  });
}
