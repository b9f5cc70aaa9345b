import type { Color } from "../color.ts";
import type { Stack } from "../stack.ts";

/** How one color is watched and the other drained, for a dry run to tell. */
export const nginxCommands = ({ settings }: Stack, from: Color, to: Color) => ({
  verify: [`ask ${settings.nginxUrl}/health every second for ${settings.verifySeconds} s: healthy, by ${to}`],
  drain: [
    `wait until the nginx workers that still use ${from} have ended, ${settings.drainSeconds} s at most`,
  ],
});
