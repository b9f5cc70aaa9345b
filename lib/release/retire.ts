import type { Color } from "../color.ts";
import { runningColors } from "../engine/colors.ts";
import { putOnStandby } from "../engine/stop.ts";
import { drainNginx } from "../nginx/drain.ts";
import { type Context, uninterruptible } from "../run/context.ts";
import { keepSessions } from "./sessions.ts";

/**
 * Drains a color, then ends it, unless it still serves its sessions: by default stops it, or pauses it with STANDBY=paused. Throws
 * StopError, DockerError.
 */
export async function retire(
  context: Context,
  color: Color,
  end: (context: Context, color: Color) => Promise<void> = putOnStandby,
): Promise<void> {
  await drainNginx(context, color);
  if (!(await keepSessions(context, color))) await end(context, color);
}

/** The same, but only if the color runs: somebody may have started it by hand. Throws StopError, DockerError. */
export async function retireIfRunning(context: Context, color: Color): Promise<void> {
  if ((await runningColors(context)).includes(color)) await retire(uninterruptible(context), color);
}
