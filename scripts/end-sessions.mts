#!/usr/bin/env -S npx tsx
import { getInactiveColor } from "../lib/color.ts";
import { putOnStandby } from "../lib/docker/stop.ts";
import { DockerError } from "../lib/errors.ts";
import { servingColor } from "../lib/nginx/probe.ts";
import { endSessions, readKeptSessions } from "../lib/release/sessions.ts";
import { type Context, pause } from "../lib/run/context.ts";
import { runTask } from "../lib/run/task.ts";

const HELP = `Ends the sessions that the previous color still serves after a release, and stops that color, once none of them
was used for SESSION_IDLE_SECONDS and none has an open request, at the latest SESSION_SECONDS after the switch.
A release starts this in the background. Run it by hand, or from cron, if that process was killed.
Without such a color it does nothing.

Usage: npx tsx scripts/end-sessions.mts [options]

  --now       do not wait: end them at once
  --quiet     print errors only
  -h, --help  print this help

Exit codes: 0 done, or nothing to do · 1 failed · 2 wrong option or setting · 3 manual intervention needed
            129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM`;

/** The longest time between two looks, in seconds. */
const LOOK_SECONDS = 10;

/** Seconds for which Docker may fail to answer, as while it restarts. */
const PATIENCE_SECONDS = 600;

/** Waits until the sessions are due, and the color that serves is healthy: until then, the kept one may be needed. */
async function wait(context: Context, now: boolean): Promise<boolean> {
  const seconds = Math.min(LOOK_SECONDS, Math.max(0.5, context.settings.sessionIdleSeconds / 10));
  for (let seen = performance.now(); ; ) {
    try {
      const kept = await readKeptSessions(context);
      if (!kept) return false;
      if ((kept.due || now) && (await servingColor(context)) === getInactiveColor(kept.color)) return true;
      seen = performance.now();
    } catch (error) {
      if (!(error instanceof DockerError) || performance.now() - seen > PATIENCE_SECONDS * 1000) throw error;
    }
    await pause(context, seconds * 1000);
  }
}

/** Returns false if the sessions turn out not to be due yet. */
async function act(context: Context, now: boolean): Promise<boolean> {
  const kept = await readKeptSessions(context); // a run may have changed it since
  if (!kept) return true;
  if (!kept.due && !now) return false;
  await endSessions(context, putOnStandby);
  return true;
}

await runTask({ verb: "end-sessions", help: HELP, wait, act });
