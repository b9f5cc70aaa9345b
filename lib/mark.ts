import { type Color, markActive, markCommands } from "./color.ts";
import type { Stack } from "./stack.ts";
import { emptyVault, rememberVault } from "./vault.ts";

/** Marks a colour as active, once it was verified through nginx, and notes what the vault has. Throws StateFileError. */
export const mark = (stack: Stack, color: Color): Promise<void> =>
  stack.step(
    `mark ${color} as active`,
    async () => {
      // A vault that went since the switch: a folder made in its mount point would pass for a vault that is in use.
      await markActive(
        stack,
        color,
        stack.options.acceptEmptyVault ? undefined : await emptyVault(stack.settings),
      );
      await rememberVault(stack);
    },
    markCommands(stack, color),
  );
