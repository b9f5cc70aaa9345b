import { type Color, getInactiveColor } from "../color.ts";
import { readCanary } from "../nginx/link.ts";
import { probeLoadedColor } from "../nginx/probe.ts";
import { sendToCanary, switchNginx } from "../nginx/switch.ts";
import { verifyCanary } from "../nginx/verify.ts";
import type { Context } from "../run/context.ts";
import type { ActiveState } from "./active.ts";
import type { Watch } from "./verdict.ts";

/**
 * A canary: before the switch, a new color gets CANARY_PERCENT of the new requests for CANARY_SECONDS. Sessions stay with the
 * color that created them. The active link says that there is a canary, so a later run can end it.
 */

/**
 * Tries a color as a canary. Does nothing with CANARY_PERCENT=0, or when no color serves. The caller takes the traffic back if
 * it fails. Throws VerifyError, VerdictError, NginxReloadError, InterruptedError.
 */
export async function tryCanary(
  context: Context,
  from: ActiveState,
  color: Color,
  traffic: Watch,
): Promise<void> {
  const { settings, options, log } = context;
  if (settings.canary.percent === 0 || !from.serves) return;
  await sendToCanary(context, from.active, color);
  await verifyCanary(context, color, traffic.check);
  if (!options.dryRun) log.info(`${color} as a canary: ${traffic.describe()}`);
}

/** Ends a canary that an interrupted run left: all requests go to the active color. Throws NginxReloadError. */
export async function endCanary(context: Context, active: Color): Promise<void> {
  const other = getInactiveColor(active);
  const isCanary =
    (await readCanary(context)) === other || (await probeLoadedColor(context.settings)).canary === other;
  if (isCanary) await switchNginx(context, active);
}
