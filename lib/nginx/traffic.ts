import type { Color } from "../color.ts";
import { containerOf } from "../docker/container.ts";
import { VerifyError } from "../errors.ts";
import { pause, type Stack } from "../stack.ts";
import { askFrontDoor } from "./frontdoor.ts";

/**
 * Spec `verify_nginx_traffic`: asks through nginx every second for `duration` seconds (VERIFY_SECONDS; at least once).
 * Throws VerifyError at the first answer that is not healthy or not by the color, InterruptedError.
 */
export async function verifyNginxTraffic(
  stack: Stack,
  color: Color,
  duration = stack.settings.verifySeconds,
): Promise<void> {
  const since = performance.now();
  for (;;) {
    const answer = await askFrontDoor(stack.settings);
    const seconds = (performance.now() - since) / 1000;
    if (!answer.healthy || answer.color !== color) {
      throw new VerifyError(`Verification through nginx failed after ${seconds.toFixed(0)} s`, {
        details: `Expected a healthy answer by ${color}, got one by ${answer.color ?? "nobody"}: ${answer.finding}`,
        next: `See why with: ${stack.settings.dockerCmd} logs --tail 50 ${containerOf(stack.settings, color)}; mend it and run this again.`,
      });
    }
    if (seconds >= duration) return;
    stack.log.progress(`well for ${seconds.toFixed(0)} of ${duration} s`);
    await pause(stack, 1000);
  }
}
