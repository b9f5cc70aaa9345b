import type { Color } from "./color.ts";
import { inspectColor, recentLogs } from "./docker/container.ts";
import { HealthError } from "./errors.ts";
import { keyHeaders } from "./nginx/key.ts";
import { getHostPort, type Settings } from "./settings.ts";
import { pause, type Stack } from "./stack.ts";
import { z } from "./zod.ts";

/** Begun at the start, beside the taking of the lock: it takes a tenth of a second, and somebody waits for the rollback. */
const undici = import("undici");

const Health = z.object({ status: z.literal("healthy"), vault_exists: z.literal(true) });

/** What one question to a /health gave. */
export interface Answer {
  healthy: boolean;
  /** What was seen, in words. */
  finding: string;
  /** The HTTP status, where there was a whole answer. */
  status?: number;
  /** The color that nginx says it has loaded; only answers through nginx carry one. */
  color?: string;
}

const excerpt = (body: string): string => JSON.stringify(body.length > 200 ? `${body.slice(0, 200)}…` : body);

function judge(status: number, body: string): Pick<Answer, "healthy" | "finding"> {
  const seen = `HTTP ${status}: ${excerpt(body)}`;
  try {
    const health: unknown = JSON.parse(body);
    const vault = z.object({ vault_exists: z.literal(false) }).safeParse(health).success;
    const healthy = status === 200 && Health.safeParse(health).success;
    return { healthy, finding: vault ? `vault not accessible; ${seen}` : seen };
  } catch {
    return { healthy: false, finding: `not JSON; ${seen}` };
  }
}

/**
 * Asks one /health over a connection of its own, so that no kept-alive one to an old nginx worker answers.
 * Healthy is 200, JSON, `status` "healthy" and `vault_exists` true, all within `timeout` seconds and 64 KiB. Never throws.
 */
export async function probeHealth(
  url: string,
  timeout: number,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const { Agent, request } = await undici;
  const agent = new Agent({ maxResponseSize: 64 * 1024 });
  try {
    const {
      statusCode,
      headers: answered,
      body,
    } = await request(url, {
      dispatcher: agent,
      headers,
      signal: AbortSignal.timeout(timeout * 1000),
    });
    const color = answered["x-loop-color"];
    return {
      ...judge(statusCode, await body.text()),
      status: statusCode,
      ...(typeof color === "string" ? { color } : {}),
    };
  } catch (error) {
    const late = error instanceof Error && error.name === "TimeoutError";
    return {
      healthy: false,
      finding: late ? `no whole answer within ${timeout} s` : `no answer: ${String(error)}`,
    };
  } finally {
    await agent.destroy();
  }
}

/**
 * Asks a color's /health through nginx, whichever color is active. Its address may be one that nginx does not know yet,
 * and a switch before it does would answer 502. Never throws.
 */
const probeThroughNginx = async ({ settings }: Stack, color: Color): Promise<Answer> =>
  probeHealth(
    `${settings.nginxUrl}/_loop/${color}/health`,
    settings.health.timeout,
    await keyHeaders(settings),
  );

/** Does nginx reach a healthy API of this color now? Never throws. */
export const nginxReaches = async (stack: Stack, color: Color): Promise<boolean> =>
  (await probeThroughNginx(stack, color)).healthy;

/** The pauses between probes, in seconds: often at first, so that a fast API is not made to wait. */
function* ramp(interval: number): Generator<number, never> {
  for (let seconds = 0.1; ; seconds *= 1.25) yield Math.min(seconds, interval);
}

const UNSEEN = { status: "unknown", restarts: 0, exitCode: 0 };

/** A container that the engine restarted this often will not become healthy by waiting. */
const RESTARTS_THAT_FAIL = 3;

/** Between its end and its restart a container is "exited" for a moment: one look does not tell. */
const LOOKS_THAT_FAIL = 2;

async function failure(stack: Stack, color: Color, finding: string): Promise<HealthError> {
  return new HealthError("Health check failed, rollback not performed", {
    details: `${finding}\nThe last lines of its log:\n${await recentLogs(stack, color, 50)}`,
    next: nextStep(stack.settings, finding),
  });
}

const nextStep = ({ vaultPath }: Settings, finding: string): string =>
  finding.includes("vault not accessible")
    ? `Check that ${vaultPath} (VAULT_PATH) is mounted and readable, then run this again.`
    : "Mend what the log shows and run this again; nothing that serves was touched.";

/** What `health_check` asks, for a dry run to tell. */
export const healthCommands = ({ settings }: Stack, color: Color): string[] => [
  `ask http://127.0.0.1:${getHostPort(settings, color)}/health and ${settings.nginxUrl}/_loop/${color}/health until both are healthy, ${settings.health.retries * settings.health.interval} s at most`,
];

/**
 * Spec `health_check`: waits until a color answers its /health well on its host port, and nginx reaches it by name as well.
 * Waits HEALTH_RETRIES × HEALTH_INTERVAL seconds at most; ends at once when the container has ended or keeps restarting.
 * Throws HealthError with the last finding and the last 50 log lines, InterruptedError.
 */
export async function healthCheck(stack: Stack, color: Color): Promise<void> {
  const { settings } = stack;
  const { retries, interval, timeout } = settings.health;
  const own = `http://127.0.0.1:${getHostPort(settings, color)}/health`;
  const deadline = performance.now() + retries * interval * 1000;

  let endedInARow = 0;
  let restartsBefore: number | undefined; // a container that was kept running may have some from long ago
  for (const seconds of ramp(interval)) {
    const direct = await probeHealth(own, timeout);
    const answer = direct.healthy ? await probeThroughNginx(stack, color) : direct;
    if (answer.healthy) return;

    const finding = direct.healthy
      ? `healthy on its port, but not through nginx: ${answer.finding}`
      : direct.finding;
    stack.log.progress(finding);
    // An engine that is busy for once must not cost the rest of the budget.
    const { status, restarts, exitCode } = await inspectColor(stack, color).catch(() => UNSEEN);
    restartsBefore ??= restarts;
    endedInARow = ["exited", "dead", "absent"].includes(status) ? endedInARow + 1 : 0;
    const hopeless =
      endedInARow >= LOOKS_THAT_FAIL
        ? `The container is ${status}, code ${exitCode}`
        : restarts - restartsBefore >= RESTARTS_THAT_FAIL
          ? `The container restarted ${restarts - restartsBefore} times meanwhile`
          : performance.now() >= deadline
            ? `Not healthy within ${retries * interval} s`
            : undefined;
    if (hopeless) throw await failure(stack, color, `${hopeless}; last probe: ${finding}`);
    await pause(stack, Math.min(seconds * 1000, Math.max(0, deadline - performance.now())));
  }
}
