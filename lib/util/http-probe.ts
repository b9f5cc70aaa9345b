import { type Expectation, mismatch } from "./expectation.ts";

/** Loaded at the start, in parallel with taking the lock: it takes 0.1 s, and a rollback is urgent. */
const undici = import("undici");

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
  /** The ports of blue and green that nginx has loaded, such as "8081 3000"; only nginx's own response carries them. */
  ports?: string;
  /** The color that is nginx's canary; only nginx's own response carries it. */
  canary?: string;
  /** The address and port that nginx got the response from; only a run gets it. */
  upstream?: string;
}

const excerpt = (body: string): string => JSON.stringify(body.length > 200 ? `${body.slice(0, 200)}…` : body);

/** Is this the health response that is expected? Without an expectation, nothing is healthy. */
function judge(
  status: number,
  body: string,
  expected: Expectation | undefined,
): Pick<Answer, "healthy" | "finding"> {
  const seen = `HTTP ${status}: ${excerpt(body)}`;
  const isSuccess = status >= 200 && status <= 299;
  if (expected === undefined || Object.keys(expected).length === 0)
    return { healthy: isSuccess && expected !== undefined, finding: seen };
  let health: unknown;
  try {
    health = JSON.parse(body);
  } catch {
    return { healthy: false, finding: `not JSON; ${seen}` };
  }
  const differs = mismatch(health, expected);
  const vault = mismatch(health, { vault_exists: false }) === undefined && "vault_exists" in expected;
  const finding = [vault ? "vault not accessible" : "", (!vault && differs) || "", seen]
    .filter(Boolean)
    .join("; ");
  return { healthy: isSuccess && differs === undefined, finding };
}

/**
 * Sends GET to a health URL over a new connection; a kept-alive one would reach an old nginx worker. Healthy is a 2xx status
 * and, unless the expectation is `{}`, JSON that contains it, within `timeout` seconds and 64 KiB. `expectedOf` gets the color
 * that answered; undefined means that this response proves nothing. Never throws.
 */
export async function probeHealth(
  url: string,
  expectedOf: (color: string | undefined) => Expectation | undefined,
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
    const text = await body.text();
    const headerOf = (name: string): string | undefined => {
      const value = answered[name];
      return typeof value === "string" ? value : undefined;
    };
    const [color, kept, canary, ports, upstream] = ["color", "kept", "canary", "ports", "upstream"].map(
      (name) => headerOf(`x-loop-${name}`),
    );
    return {
      ...judge(statusCode, text, expectedOf(color)),
      status: statusCode,
      ...(color === undefined ? {} : { color }),
      ...(kept === undefined ? {} : { kept }),
      ...(canary === undefined ? {} : { canary }),
      ...(ports === undefined ? {} : { ports }),
      ...(upstream === undefined ? {} : { upstream }),
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
