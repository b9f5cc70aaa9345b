import { setTimeout as sleep } from "node:timers/promises";

/** Asks until the answer is yes, `limit` seconds at most, with `every` seconds between two questions. Returns the last answer. */
export async function pollUntil(
  limit: number,
  isTrue: () => Promise<boolean>,
  every = 0.1,
): Promise<boolean> {
  for (const deadline = performance.now() + limit * 1000; ; await sleep(every * 1000)) {
    if (await isTrue()) return true;
    if (performance.now() >= deadline) return false;
  }
}
