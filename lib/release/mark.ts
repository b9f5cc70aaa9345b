import type { Color } from "../color.ts";
import type { Context } from "../run/context.ts";
import { writeActiveColor } from "./state-file.ts";
import { recordVault, vaultLoss } from "./vault.ts";

/**
 * Spec `mark_active`: records a color as active, once it was verified through nginx, and records what the vault contains.
 * Throws StateFileError when the color cannot be recorded.
 */
export const markActive = (context: Context, color: Color): Promise<void> => {
  const { settings, options } = context;
  const mark = async (): Promise<void> => {
    // If the vault was unmounted since the switch, a folder created in its mount point would look like a vault in use.
    const loss = options.acceptEmptyVault ? undefined : await vaultLoss(settings);
    await writeActiveColor(context, color, loss?.mounted ? undefined : loss?.finding);
    await recordVault(context);
  };
  return context.change(`mark ${color} as active`, mark, [
    `write ${color} to ${settings.recordFile} and ${settings.activeColorFile}`,
  ]);
};
