import { isColor } from "../color.ts";
import type { Stack } from "../stack.ts";
import { askLoaded } from "./frontdoor.ts";
import { readLink, repairLink } from "./link.ts";
import { reloadInto, switchCommands } from "./switch.ts";
import { refused } from "./written.ts";

/**
 * Has nginx read the key of this run, where it does not know it yet, or still runs without any: before a switch it is asked whether
 * it reaches the new color, and an nginx that knows no keys would hand this one on to the API. What serves stays as it is.
 * Throws ConfigurationError, LinkError, and what the file system throws.
 */
export async function loadKey(stack: Stack): Promise<void> {
  const knowsKeys = (await askLoaded(stack.settings, {})).status === 404;
  const knowsThis = knowsKeys && (await askLoaded(stack.settings)).status !== 404;
  if (knowsThis) return;
  const loaded = (await askLoaded(stack.settings, {})).color;
  if (!isColor(loaded)) return; // nginx does not answer
  await readLink(stack); // what is no link is its owner's
  const act = async (): Promise<void> => {
    // A run that was killed between swap and reload has left a link to a color that nobody has verified.
    await repairLink(stack, loaded);
    await reloadInto(stack, loaded).catch((error) => {
      throw refused(stack, error instanceof Error ? error.message : String(error));
    });
  };
  await stack.step("have nginx read the key", act, switchCommands(stack, loaded));
}
