#!/usr/bin/env -S npx tsx
import { getInactiveColor } from "../lib/color.ts";
import { checkCompose, checkEngine } from "../lib/docker/engine.ts";
import { inspectImage, taggedImage } from "../lib/docker/image.ts";
import { findRestart, restartContainer } from "../lib/engine/start.ts";
import { discardRelease, NEVER_SERVED_GRACE, putOnStandby, stopContainer } from "../lib/engine/stop.ts";
import { NginxReloadError } from "../lib/errors.ts";
import { drainNginx } from "../lib/nginx/drain.ts";
import { loadKey } from "../lib/nginx/load.ts";
import { newestLoaded } from "../lib/nginx/probe.ts";
import { switchNginx } from "../lib/nginx/switch.ts";
import { verifyNginxTraffic } from "../lib/nginx/verify.ts";
import { type ActiveState, forRollback } from "../lib/release/active.ts";
import { repairTags, tagRelease } from "../lib/release/color-tags.ts";
import { healthCheck } from "../lib/release/health.ts";
import { checkHooks, runFailureHook, runHook } from "../lib/release/hooks.ts";
import { markActive } from "../lib/release/mark.ts";
import { warnOfMemory } from "../lib/release/memory.ts";
import { migrateState } from "../lib/release/migrate.ts";
import { findActive } from "../lib/release/observation.ts";
import { checkPortAvailable } from "../lib/release/port.ts";
import { recoverInterruptedRun } from "../lib/release/recovery.ts";
import { findRelease, listReleases, servesRelease } from "../lib/release/releases.ts";
import { describeReleases } from "../lib/release/releases-text.ts";
import { describeRollback, describeUnchanged } from "../lib/release/result.ts";
import { retire, retireIfRunning } from "../lib/release/retire.ts";
import { startServicesForRollback } from "../lib/release/services.ts";
import { endSessions, keepSessions, servesSessions } from "../lib/release/sessions.ts";
import { getActiveColor } from "../lib/release/state-file.ts";
import { takeTrafficBack, undo } from "../lib/release/undo.ts";
import { finishRollback, isRepeatedRollback } from "../lib/release/unfinished.ts";
import { checkVault } from "../lib/release/vault.ts";
import { watchTraffic } from "../lib/release/verdict.ts";
import { type Context, uninterruptible } from "../lib/run/context.ts";
import type { RunRecord } from "../lib/run/record.ts";
import { type Outcome, runScript } from "../lib/run/script.ts";

const HELP = `Usage: npx tsx scripts/rollback.mts [options]

Rolls back to the previous release, or to the one that --to names, without a build or pull. Starts it as the idle color,
checks its health, switches nginx to it, and verifies it for VERIFY_SECONDS. Then drains the color that served before, and
stops it unless it still has MCP sessions. A second rollback returns to that color. If a release was interrupted during
its canary or verification, a rollback returns all traffic to the color that served before it, and goes no further back.
Runs the hooks in HOOKS_PATH; see docs/hooks.md.

During VERIFY_SECONDS, checks the health through nginx every second, and counts the responses to clients in nginx's
log. Switches nginx back if a health check fails or its response comes from another color; or if the new color has at
least JUDGE_ERRORS (3) responses with a 5xx status, an error rate of at least JUDGE_PERCENT (5), and a significantly
higher error rate than the previous color. The error rate is the share of a color's responses to clients that have a
5xx status.

  --list      print the releases that are kept, the one that served last first, and exit
  --to N      roll back to release N of that list instead of the previous one
  --dry-run   change nothing; print the steps and their commands
  --accept-empty-vault
              continue although the vault is empty and earlier releases used it; without this option the run
              stops, because the volume may not be mounted
  --quiet     print one line to stdout, at the end
  --verbose   print every docker command and its output
  -h, --help  print this help

Exit codes: 0 done · 1 failed, the previous color still serves · 2 wrong option or setting
            3 manual intervention needed · 4 another run holds the lock
            129, 130, 143 interrupted by SIGHUP, SIGINT (Ctrl-C) or SIGTERM. If the result is "done, interrupted",
            the rollback is complete: do not repeat it. Otherwise it was undone
Settings:   environment variables override .env.blue-green, which overrides the defaults;
            see .env.blue-green.example`;

/** Recovery already reached the color that this run is for: verifies that it serves, and reports it. */
async function finish(
  context: Context,
  { active: color, proof }: ActiveState,
  what: string,
  interrupted: RunRecord,
): Promise<Outcome> {
  context.lock.record({ from: getInactiveColor(color), to: color });
  const verify = (): Promise<void> => verifyNginxTraffic(context, color);
  if (proof !== "done")
    await (interrupted.verb === "rollback" ? finishRollback(context, interrupted, verify) : verify());
  const other = getInactiveColor(color);
  const rest = uninterruptible(context);
  if (await servesSessions(context, other)) await retire(rest, other);
  await runHook(rest, "post-rollback");
  const image = await taggedImage(context, color).catch(() => undefined);
  return describeRollback(context, color, image, what);
}

async function main(context: Context): Promise<Outcome> {
  const { settings, options, lock } = context;
  await checkHooks(context);
  await migrateState(context); // once, from versions before STATE_DIR
  await checkVault(context);
  await context.inspect("read the color record", () => getActiveColor(settings));
  await checkEngine(context);
  const target = options.to === undefined ? undefined : await findRelease(context, options.to);
  await startServicesForRollback(context, target?.id);
  await loadKey(context);
  const interrupted = lock.unfinished();
  const repeated = !target && (await isRepeatedRollback(context, interrupted));
  const loaded = await newestLoaded(settings);
  const seen = await findActive(context);
  const finishes = repeated || (await servesRelease(context, seen, target));
  const found = forRollback(seen, interrupted, { finishes, replaces: target !== undefined });
  const from = await recoverInterruptedRun(context, found);
  const { active } = from;
  if (target && (await servesRelease(context, from, target))) {
    const { release } = target;
    if (interrupted?.to !== active)
      return describeUnchanged(context, active, `Release ${release} serves already`);
    return finish(
      context,
      from,
      `Rolled back to release ${release}, finishing the interrupted run:`,
      interrupted,
    );
  }
  if (repeated && interrupted?.to === active && from.serves)
    return finish(context, from, "Rolled back, finishing the interrupted run:", interrupted);
  // The release that the owner wants to leave was interrupted, and recovery has already moved the traffic back.
  if (
    !target &&
    interrupted?.verb === "deploy" &&
    interrupted.to === loaded &&
    loaded !== active &&
    from.serves
  )
    return finish(context, from, "Rolled back, from an interrupted release:", interrupted);
  const next = getInactiveColor(active);

  const images = await repairTags(context);
  const image = target ? await inspectImage(context, target.id) : images[next];
  const restart = await findRestart(context, next, image);
  const previous = images[next]?.id;
  const moved = target?.id === previous ? undefined : target; // the release that the color's tag must be moved to
  if (!restart.existing) await checkCompose(context);
  if (!restart.holdsPort) {
    await checkPortAvailable(context, next);
    await warnOfMemory(context, active);
  }
  // Clears the facts of an earlier run.
  lock.record({
    from: active,
    to: next,
    serves: from.serves,
    imageBefore: moved ? (previous ?? null) : undefined,
    started: undefined,
    verified: undefined,
  });
  if (moved || !restart.existing) {
    await endSessions(context); // if the idle color still serves any
    await retireIfRunning(context, next); // its container is about to be replaced
  }
  if (moved) lock.record({ started: true });
  const discard = async (inner: Context): Promise<void> => {
    if (moved) await discardRelease(inner, next, previous);
  };
  try {
    if (moved) await tagRelease(context, next, moved);
    await restartContainer(context, next, restart);
    await healthCheck(context, next);
    await checkVault(context);
    await runHook(context, "pre-switch");
    await switchNginx(context, next, settings.sessionSeconds > 0 ? "sessions" : "nothing"); // restores the old link if it fails
  } catch (error) {
    if (error instanceof NginxReloadError) throw error; // both colors run; the error says how to continue
    await undo(context, error, async (inner) => {
      if (!restart.runs) await stopContainer(inner, next, NEVER_SERVED_GRACE); // else it still serves its sessions
      await discard(inner);
    });
  }
  const traffic = await watchTraffic(context, active, next);
  try {
    await verifyNginxTraffic(context, next, traffic.check);
    lock.record({ verified: true });
    await markActive(context, next);
  } catch (error) {
    traffic.stop();
    await undo(context, error, async (inner) => {
      await takeTrafficBack(inner, from, next, restart.runs);
      await discard(inner);
    });
  }

  // The rollback stands. If interrupted, still stop the old color so that only one keeps running.
  const rest = uninterruptible(context);
  const figures = traffic.report();
  await drainNginx(rest, active);
  if (!(await keepSessions(rest, active))) await putOnStandby(rest, active);
  await runHook(rest, "post-rollback");
  const what = target && `Rolled back to release ${target.release},`;
  return { ...(await describeRollback(rest, next, restart.image, what)), ...figures };
}

await runScript({
  verb: "rollback",
  help: HELP,
  needs: "vault",
  main,
  list: async (context) => console.log(describeReleases(await listReleases(context))),
  failed: runFailureHook,
});
