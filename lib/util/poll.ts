import { setTimeout as sleep } from "node:timers/promises";

/** Asks every 0.1 s until the answer is yes, `limit` seconds at most. Returns the last answer. */
export async function pollUntil(limit: number, isTrue: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = performance.now() + limit * 1000; ; await sleep(100)) {
    if (await isTrue()) return true;
    if (performance.now() >= deadline) return false;
  }
}
