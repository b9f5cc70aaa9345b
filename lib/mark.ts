import { type Color, markActive, markCommands } from "./color.ts";
import type { Stack } from "./stack.ts";
import { rememberVault } from "./vault.ts";

/** Marks a colour as active, once it was verified through nginx, and notes what the vault has. Throws StateFileError. */
export const mark = (stack: Stack, color: Color): Promise<void> =>
  stack.step(
    `mark ${color} as active`,
    async () => {
      await markActive(stack, color);
      await rememberVault(stack);
    },
    markCommands(stack, color),
  );
