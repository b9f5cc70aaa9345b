import type { Readable } from "node:stream";
import type { Settings } from "../settings.ts";
import { NOTIFY_FORMATS } from "../util/notify-formats.ts";
import { DONE } from "./history.ts";
import { inWords, type Notice } from "./notice.ts";

const TIMEOUT_SECONDS = 10;

/** No service says in more characters whether it has accepted a notification. */
const ANSWER_MOST = 64 * 1024;

/**
 * POSTs a notice to NOTIFY_URL in the format NOTIFY_FORMAT after each run, or with NOTIFY_ON=failure only after runs that
 * failed, interrupted requests, or were themselves interrupted.
 * Takes 10 s at most. Never throws: errors go to `warn`, without the address, which may contain a secret.
 */
export async function notify(
  { notifyUrl, notifyOn, notifyFormat }: Settings,
  notice: Notice,
  warn: (message: string) => void,
): Promise<void> {
  const good = notice.result === DONE && !notice.cut;
  if (!notifyUrl || (notifyOn === "failure" && good)) return;
  const { post, accepted } = NOTIFY_FORMATS[notifyFormat];
  try {
    const { request } = await import("undici"); // late, because loading it takes 0.1 s
    const { statusCode, body } = await request(notifyUrl, {
      method: "POST",
      ...post(inWords(notice)),
      signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000),
    });
    if (statusCode >= 300 || !accepted) await body.dump();
    if (statusCode >= 300) warn(`NOTIFY_URL answered HTTP ${statusCode}`);
    else if (accepted && !isTrue(accepted, await startOf(body)))
      // Its answer is not shown: a page of an error may repeat the address.
      warn(`NOTIFY_URL answered HTTP ${statusCode}, but did not accept the notification`);
  } catch (error) {
    const { name, code } = error as Error & { code?: unknown };
    warn(`NOTIFY_URL was not reached: ${typeof code === "string" ? code : name}`);
  }
}

/** The start of an answer. An endless one would take the memory of this machine until the time is up. */
async function startOf(body: Readable): Promise<string> {
  let text = "";
  for await (const chunk of body.setEncoding("utf8")) {
    text += chunk;
    if (text.length > ANSWER_MOST) break;
  }
  return text;
}

/** Is this the text of a JSON object whose field is true? */
function isTrue(field: string, text: string): boolean {
  try {
    const answer: unknown = JSON.parse(text);
    return typeof answer === "object" && answer !== null && Reflect.get(answer, field) === true;
  } catch {
    return false;
  }
}
