import { DONE } from "./history.ts";
import type { Settings } from "./settings.ts";

const TIMEOUT_SECONDS = 10;

/** What a notification says: the whole JSON document. */
export interface Notice {
  /** "done", "done, interrupted" (with the signal's exit code), or the name of the error, such as "HealthError". */
  result: string;
  exitCode: number;
  verb: string;
  project: string;
  /** The colors, where the run came so far as to know them. */
  from: string | undefined;
  to: string | undefined;
  seconds: number;
  /** How many requests were cut at the drain limit; left out where none were. */
  cut?: number | undefined;
  message: string;
}

/**
 * POSTs a notice to NOTIFY_URL, of each run or, with NOTIFY_ON=failure, of those that failed or cut requests. 10 s at most.
 * Never throws: what went wrong goes to `warn`, without the address, which may carry a secret.
 */
export async function notify(
  { notifyUrl, notifyOn }: Settings,
  notice: Notice,
  warn: (message: string) => void,
): Promise<void> {
  const good = notice.result === DONE && !notice.cut;
  if (!notifyUrl || (notifyOn === "failure" && good)) return;
  try {
    const { request } = await import("undici"); // late: see lib/health.ts
    const { statusCode, body } = await request(notifyUrl, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(notice),
      signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000),
    });
    await body.dump();
    if (statusCode >= 300) warn(`NOTIFY_URL answered HTTP ${statusCode}`);
  } catch (error) {
    const { name, code } = error as Error & { code?: unknown };
    warn(`NOTIFY_URL was not reached: ${typeof code === "string" ? code : name}`);
  }
}
