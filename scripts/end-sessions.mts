#!/usr/bin/env -S npx tsx
import { getInactiveColor } from "../lib/color.ts";
import { colorStates } from "../lib/engine/colors.ts";
import { putOnStandby } from "../lib/engine/stop.ts";
import { DockerError } from "../lib/errors.ts";
import type { KeptColor } from "../lib/nginx/link.ts";
import { servingColor } from "../lib/nginx/probe.ts";
import { shortenSessionLogs } from "../lib/nginx/sessions.ts";
import { endSessionsOf, keptColor, readKeptSessions } from "../lib/release/sessions.ts";
import { type Context, pause } from "../lib/run/context.ts";
import type { RunRecord } from "../lib/run/record.ts";
import { runTask, type When } from "../lib/run/task.ts";

const HELP = `Usage: npx tsx scripts/end-sessions.mts [options]

After a release or rollback, the previous color keeps running for its own MCP sessions. This waits until the sessions
are idle (no request for SESSION_IDLE_SECONDS and none open) or SESSION_SECONDS after the switch. When the serving
color is healthy, it ends the sessions and stops the previous color. A release or rollback starts this in the
background. If no color is kept for its sessions, it does nothing.

  --now       do not wait; the serving color must still be healthy
  --if-due    end them if it is time; otherwise exit at once. For cron, in case the background process was killed
  --quiet     print errors only
  -h, --help  print this help

Exit codes: 0 done, or nothing to do · 1 failed, or an interrupted run must be repaired first
            2 wrong option or setting · 3 manual intervention needed
            129, 130, 143 interrupted by SIGHUP, SIGINT (Ctrl-C), SIGTERM`;

/** The longest time between two looks, in seconds. */
const LOOK_SECONDS = 10;

/** Seconds for which Docker may fail to answer, as while it restarts. */
const PATIENCE_SECONDS = 600;

/**
 * Waits until the sessions are due, and the color that serves is healthy: until then, the kept one may be needed. Also ends when
 * another run has changed the kept color: that run starts a process of its own.
 */
async function wait(
  context: Context,
  when: When,
  left: RunRecord | undefined,
): Promise<KeptColor | undefined> {
  if (left?.from && !(await keptColor(context))) return { color: left.from, sinceMs: Date.parse(left.since) };
  const seconds = Math.min(LOOK_SECONDS, Math.max(0.5, context.settings.sessionIdleSeconds / 10));
  let [answeredMs, busyMs, sinceMs] = [Date.now(), 0, 0];
  for (;;) {
    try {
      const kept = await readKeptSessions(context, busyMs);
      answeredMs = Date.now();
      if (!kept || (sinceMs !== 0 && kept.sinceMs !== sinceMs)) return undefined;
      sinceMs = kept.sinceMs;
      if (kept.open > 0) busyMs = Date.now();
      const isTime = kept.due || when === "now";
      if (isTime && (await servingColor(context)) === getInactiveColor(kept.color)) return kept;
      if (when === "if due") return undefined;
      if (isTime) context.log.info(`waiting until ${getInactiveColor(kept.color)} is healthy`);
      else await shortenSessionLogs(context);
    } catch (error) {
      const isPatient = when === "due" && Date.now() - answeredMs < PATIENCE_SECONDS * 1000;
      if (!(error instanceof DockerError) || !isPatient) throw error;
    }
    await pause(context, seconds * 1000);
  }
}

/** Returns false if another run has changed the kept color meanwhile. */
async function act(context: Context, kept: KeptColor): Promise<boolean> {
  const { color, sinceMs } = kept;
  const now = await keptColor(context);
  if (now ? now.sinceMs !== sinceMs : (await colorStates(context))[color] !== "running") return false;
  if ((await servingColor(context)) !== getInactiveColor(color)) return false;
  context.lock.record({ from: color });
  await endSessionsOf(context, kept, putOnStandby);
  return true;
}

await runTask({ verb: "end-sessions", help: HELP, wait, act });
