import type { Color } from "../color.ts";
import { readApis } from "../engine/apis.ts";
import { logsCommand } from "../engine/colors.ts";
import { VerifyError } from "../errors.ts";
import { type Context, pause } from "../run/context.ts";
import type { Answer } from "../util/http-probe.ts";
import { probeNginx, probeThroughNginx, urlThroughNginx } from "./probe.ts";

/** Called often; throws when the traffic must go back at once. */
type Check = () => void;

/** Seconds between two probes, and between two checks of the responses to clients. */
const [PROBE_SECONDS, CHECK_SECONDS] = [1, 0.1];

/**
 * Spec `verify_nginx_traffic`: asks the health path through nginx every second for VERIFY_SECONDS, at least once.
 * Throws VerifyError at the first response that is unhealthy or from another color, InterruptedError, and what `check` throws.
 */
export const verifyNginxTraffic = (
  context: Context,
  color: Color,
  check: Check = () => undefined,
): Promise<void> => {
  const { settings } = context;
  const { nginxUrl, verifySeconds } = settings;
  const probe = async (): Promise<Answer> => {
    const answer = await probeNginx(settings, color);
    return { ...answer, healthy: answer.healthy && answer.color === color };
  };
  return context.change(
    `verify ${color} through nginx`,
    () => watch(context, color, verifySeconds, probe, check),
    [
      `GET ${nginxUrl}${readApis(settings)[color].healthPath} every second for ${verifySeconds} s: every response must be healthy and from ${color}`,
    ],
  );
};

/**
 * The same for a canary, for CANARY_SECONDS. nginx sends runs to the active color, so the canary has a path of its own. Throws
 * as `verifyNginxTraffic` does.
 */
export const verifyCanary = (context: Context, color: Color, check: Check): Promise<void> => {
  const { canary } = context.settings;
  const probe = async (): Promise<Answer> => {
    const { healthy, finding } = await probeThroughNginx(context, color);
    return { healthy, finding }; // the color in this response is the active one
  };
  return context.change(
    `verify ${color} as a canary`,
    () => watch(context, color, canary.seconds, probe, check),
    [
      `GET ${urlThroughNginx(context.settings, color)} every second for ${canary.seconds} s: every response must be healthy`,
    ],
  );
};

async function watch(
  context: Context,
  color: Color,
  limit: number,
  probe: () => Promise<Answer>,
  check: Check,
): Promise<void> {
  const { log } = context;
  const since = performance.now();
  const secondsSince = (): number => (performance.now() - since) / 1000;
  for (;;) {
    const answer = await probe();
    const seconds = secondsSince();
    if (!answer.healthy) {
      throw new VerifyError(`Verification through nginx failed after ${seconds.toFixed(0)} s`, {
        details: `Expected a healthy response from ${color}. Got${answer.color ? `, from ${answer.color}` : ""}: ${answer.finding}`,
        next: `See the log: ${logsCommand(context, color)}. Fix the cause and run this again.`,
      });
    }
    check();
    if (seconds >= limit) return;
    log.progress(`healthy so far: ${seconds.toFixed(0)} of ${limit} s`);
    for (const until = Math.min(limit, seconds + PROBE_SECONDS); secondsSince() < until; check())
      await pause(context, Math.min(CHECK_SECONDS, until - secondsSince()) * 1000);
  }
}
