import { isColor } from "../color.ts";
import type { Stack } from "../stack.ts";
import { askLoaded, loadedColor } from "./frontdoor.ts";
import { repairLink } from "./link.ts";
import { reloadInto, switchCommands } from "./switch.ts";
import { refused } from "./written.ts";

/**
 * Has nginx read the key of this run, where it does not know it yet: before a switch it is asked whether it reaches the new
 * colour. What serves stays as it is. Throws ConfigurationError, and what the file system throws.
 */
export async function loadKey(stack: Stack): Promise<void> {
  if ((await askLoaded(stack.settings)).status !== 404) return; // also where nginx still runs without any key
  const loaded = await loadedColor(stack.settings);
  if (!isColor(loaded)) return;
  const act = async (): Promise<void> => {
    // A run that was killed between swap and reload has left a link to a colour that nobody has verified.
    await repairLink(stack, loaded);
    await reloadInto(stack, loaded).catch((error) => {
      throw refused(stack, error instanceof Error ? error.message : String(error));
    });
  };
  await stack.step("have nginx read the key", act, switchCommands(stack, loaded));
}
