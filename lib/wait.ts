import { setTimeout as sleep } from "node:timers/promises";

/** Asks every 0.1 s until it is so, `limit` seconds at most; tells whether it became so. */
export async function awaitThat(limit: number, isSo: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = performance.now() + limit * 1000; ; await sleep(100)) {
    if (await isSo()) return true;
    if (performance.now() >= deadline) return false;
  }
}
