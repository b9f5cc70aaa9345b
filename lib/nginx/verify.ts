import type { Color } from "../color.ts";
import { containerOf } from "../docker/names.ts";
import { VerifyError } from "../errors.ts";
import { type Context, pause } from "../run/context.ts";
import { probeNginx } from "./probe.ts";

/**
 * Spec `verify_nginx_traffic`: asks /health through nginx every second for VERIFY_SECONDS, at least once. `check` is called as
 * often, and may throw.
 * Throws VerifyError at the first response that is unhealthy or from another color, InterruptedError, and what `check` throws.
 */
export const verifyNginxTraffic = (
  context: Context,
  color: Color,
  check: () => void = () => undefined,
): Promise<void> => {
  const { nginxUrl, verifySeconds } = context.settings;
  return context.change(`verify ${color} through nginx`, () => watch(context, color, check), [
    `GET ${nginxUrl}/health every second for ${verifySeconds} s: every response must be healthy and from ${color}`,
  ]);
};

async function watch(context: Context, color: Color, check: () => void): Promise<void> {
  const { settings, log } = context;
  const { verifySeconds, dockerCmd } = settings;
  const since = performance.now();
  for (;;) {
    const answer = await probeNginx(settings);
    const seconds = (performance.now() - since) / 1000;
    if (!answer.healthy || answer.color !== color) {
      throw new VerifyError(`Verification through nginx failed after ${seconds.toFixed(0)} s`, {
        details: `Expected a healthy response from ${color}. Got${answer.color ? `, from ${answer.color}` : ""}: ${answer.finding}`,
        next: `See the log: ${dockerCmd} logs --tail 50 ${containerOf(settings, color)}. Fix the cause and run this again.`,
      });
    }
    check();
    if (seconds >= verifySeconds) return;
    log.progress(`healthy for ${seconds.toFixed(0)} of ${verifySeconds} s`);
    await pause(context, Math.min(1000, (verifySeconds - seconds) * 1000));
  }
}
