import type { Settings } from "../settings.ts";
import { DONE } from "./history.ts";

const TIMEOUT_SECONDS = 10;

/** The JSON document of a notification. */
export interface Notice {
  /** "done", "done, interrupted" (with the signal's exit code), or the name of the error, such as "HealthError". */
  result: string;
  exitCode: number;
  verb: string;
  project: string;
  /** The colors, if the run got far enough to know them. */
  from: string | undefined;
  to: string | undefined;
  seconds: number;
  /** How many requests were interrupted at the drain limit; left out if none. */
  cut?: number | undefined;
  message: string;
}

/**
 * POSTs a notice to NOTIFY_URL after each run, or with NOTIFY_ON=failure only after runs that failed,
 * interrupted requests, or were themselves interrupted.
 * Takes 10 s at most. Never throws: errors go to `warn`, without the address, which may contain a secret.
 */
export async function notify(
  { notifyUrl, notifyOn }: Settings,
  notice: Notice,
  warn: (message: string) => void,
): Promise<void> {
  const good = notice.result === DONE && !notice.cut;
  if (!notifyUrl || (notifyOn === "failure" && good)) return;
  try {
    const { request } = await import("undici"); // late, because loading it takes 0.1 s
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
