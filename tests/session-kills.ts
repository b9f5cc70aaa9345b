import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { startRun } from "../bench/testbed/run.ts";
import type { Scratch } from "../bench/testbed/scratch.ts";
import type { SessionsReport } from "../bench/testbed/sessions.ts";

/** Fails unless all calls of all sessions succeeded, each session on one color. */
export function expectIntact({ failures, gaps, sessions }: SessionsReport, color: string): void {
  assert.equal({ failures, gaps }, { failures: {}, gaps: 0 });
  for (const session of sessions) assert.equal(session.colors, [color], session.id);
}

/** Ends a rollback with a signal when a step is done. Returns when it has ended. */
export async function endRollback(
  stack: Scratch,
  step: string,
  signal: "SIGKILL" | "SIGTERM",
): Promise<void> {
  const run = startRun(stack, "rollback", { VERIFY_SECONDS: "2" });
  await run.waitForStep(step);
  run.kill(signal);
  await run.ended;
  await sleep(300);
}

/** Ends a rollback with a signal when a step is done. Then runs another one. Returns the output of that one. */
export async function killRollback(
  stack: Scratch,
  step: string,
  signal: "SIGKILL" | "SIGTERM",
): Promise<string> {
  await endRollback(stack, step, signal);
  const next = await stack.rollback([], { VERIFY_SECONDS: "0.3" });
  assert.is(next.exitCode, 0, next.stdall);
  await sleep(300);
  return next.stdall;
}
