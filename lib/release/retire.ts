import type { Color } from "../color.ts";
import { putOnStandby } from "../docker/stop.ts";
import { drainNginx } from "../nginx/drain.ts";
import type { Context } from "../run/context.ts";

/** Drains a color, then stops it, or pauses it with STANDBY=paused. Throws StopError. */
export async function retire(context: Context, color: Color): Promise<void> {
  await drainNginx(context, color);
  await putOnStandby(context, color);
}
