import type { Color } from "../color.ts";
import { readApis } from "../engine/apis.ts";
import { inspectColor, recentLogs } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import { HealthError } from "../errors.ts";
import { loadPorts } from "../nginx/load.ts";
import { probeReplicas, urlThroughNginx } from "../nginx/probe.ts";
import { type Context, pause } from "../run/context.ts";
import type { Settings } from "../settings.ts";

/** The pauses between probes in seconds: short at first, so that a fast API does not wait. */
function* ramp(interval: number): Generator<number, never> {
  for (let seconds = 0.1; ; seconds *= 1.25) yield Math.min(seconds, interval);
}

const UNKNOWN = { status: "unknown", restarts: 0, exitCode: 0 };

/** A container that the engine restarted this often will not become healthy by waiting. */
const RESTARTS_THAT_FAIL = 3;

/** Between its exit and its restart a container is briefly "exited", so one look is not enough. */
const LOOKS_THAT_FAIL = 2;

/** The ms between looks at the container. Each takes as long as several probes, and the API's CPU time. */
const LOOK_EVERY_MS = 1000;

async function failure(context: Context, color: Color, finding: string): Promise<HealthError> {
  return new HealthError("Health check failed, rollback not performed", {
    details: `${finding}\nThe last lines of its log:\n${await recentLogs(context, color, 50)}`,
    next: nextStep(context.settings, finding),
  });
}

function nextStep({ vaultPath }: Settings, finding: string): string {
  if (vaultPath !== undefined && finding.includes("vault not accessible"))
    return `Check that ${vaultPath} (VAULT_PATH) is mounted and readable, then run this again.`;
  const hint = /HTTP 2\d\d: /.test(finding)
    ? "If this is how your API reports that it is healthy, set HEALTH_EXPECT to it (empty: any 2xx status). "
    : "";
  return `${hint}Fix what the log shows and run this again; the serving color was not touched.`;
}

/**
 * Spec `health_check`: waits until a color is healthy on its host port and through nginx, which first learns its port, for
 * HEALTH_RETRIES × HEALTH_INTERVAL seconds at most. Fails at once when the container exited or keeps restarting.
 * Throws HealthError with the last finding and the last 50 log lines, InterruptedError, and what `loadPorts` throws.
 */
export async function healthCheck(context: Context, color: Color): Promise<void> {
  const { settings } = context;
  const { retries, interval } = settings.health;
  await loadPorts(context);
  await context.change(`check the health of ${color}`, () => waitUntilHealthy(context, color), [
    `${engineOf(context).probeCommand(context, color, readApis(settings)[color])} and ${urlThroughNginx(settings, color)} until both are healthy, ${retries * interval} s at most`,
  ]);
}

async function waitUntilHealthy(context: Context, color: Color): Promise<void> {
  const { settings } = context;
  const { retries, interval, timeout } = settings.health;
  const api = readApis(settings)[color];
  const engine = engineOf(context);
  const deadline = performance.now() + retries * interval * 1000;

  let looked = Number.NEGATIVE_INFINITY;
  let [status, restarts, exitCode] = ["unknown", 0, 0];
  let endedInARow = 0;
  let restartsBefore: number | undefined; // an existing container may have restarted long ago
  for (const seconds of ramp(interval)) {
    const direct = await engine.probe(context, color, api, timeout);
    const answer = direct.healthy ? await probeReplicas(context, color, direct.addresses) : direct;
    if (answer.healthy) return;

    const own = direct.addresses ? direct.finding : "healthy on its port";
    const finding = direct.healthy ? `${own}, but not through nginx: ${answer.finding}` : direct.finding;
    context.log.progress(finding);
    if (performance.now() - looked >= LOOK_EVERY_MS) {
      looked = performance.now();
      // A busy engine must not use up the remaining time.
      ({ status, restarts, exitCode } = await inspectColor(context, color).catch(() => UNKNOWN));
      restartsBefore ??= restarts;
      endedInARow = ["exited", "dead", "absent"].includes(status) ? endedInARow + 1 : 0;
    }
    const hopeless =
      endedInARow >= LOOKS_THAT_FAIL
        ? `The container is ${status}, code ${exitCode}`
        : restarts - (restartsBefore ?? restarts) >= RESTARTS_THAT_FAIL
          ? `The container restarted ${restarts - (restartsBefore ?? restarts)} times during the check`
          : performance.now() >= deadline
            ? `Not healthy within ${retries * interval} s`
            : undefined;
    if (hopeless) throw await failure(context, color, `${hopeless}; last probe: ${finding}`);
    await pause(context, Math.min(seconds * 1000, Math.max(0, deadline - performance.now())));
  }
}
