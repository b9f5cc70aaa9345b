import { type Color, markActive, markCommands } from "./color.ts";
import type { Stack } from "./stack.ts";
import { rememberVault, vaultLoss } from "./vault.ts";

/** Marks a color as active, once it was verified through nginx, and notes what the vault has. Throws StateFileError. */
export const mark = (stack: Stack, color: Color): Promise<void> =>
  stack.step(
    `mark ${color} as active`,
    async () => {
      // A vault that went since the switch: a folder made in its mount point would pass for a vault that is in use.
      const loss = stack.options.acceptEmptyVault ? undefined : await vaultLoss(stack.settings);
      await markActive(stack, color, loss?.mounted ? undefined : loss?.finding);
      await rememberVault(stack);
    },
    markCommands(stack, color),
  );
