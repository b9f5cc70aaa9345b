import { z } from "./zod.ts";

/** Loaded at the start, in parallel with taking the lock: it takes 0.1 s, and a rollback is urgent. */
const undici = import("undici");

const Health = z.object({ status: z.literal("healthy"), vault_exists: z.literal(true) });

/** The result of one health probe. */
export interface Answer {
  healthy: boolean;
  /** What was seen, in words. */
  finding: string;
  /** The HTTP status, if there was a complete response. */
  status?: number;
  /** The color that answered; only responses through nginx carry it. */
  color?: string;
  /** The color that nginx keeps for its sessions; only nginx's own response carries it. */
  kept?: string;
  /** The color that is nginx's canary; only nginx's own response carries it. */
  canary?: string;
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
 * Sends GET to a /health URL over a new connection; a kept-alive one would reach an old nginx worker.
 * Healthy is 200, JSON, `status` "healthy" and `vault_exists` true, within `timeout` seconds and 64 KiB. Never throws.
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
    const { "x-loop-color": color, "x-loop-kept": kept, "x-loop-canary": canary } = answered;
    return {
      ...judge(statusCode, await body.text()),
      status: statusCode,
      ...(typeof color === "string" ? { color } : {}),
      ...(typeof kept === "string" ? { kept } : {}),
      ...(typeof canary === "string" ? { canary } : {}),
    };
  } catch (error) {
    const late = error instanceof Error && error.name === "TimeoutError";
    return {
      healthy: false,
      finding: late ? `no complete response within ${timeout} s` : `no response: ${String(error)}`,
    };
  } finally {
    await agent.destroy();
  }
}
