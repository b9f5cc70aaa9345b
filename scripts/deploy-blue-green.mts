#!/usr/bin/env -S npx tsx
import { getInactiveColor } from "../lib/color.ts";
import { checkCompose, checkEngine } from "../lib/docker/engine.ts";
import { restoreImage } from "../lib/docker/image.ts";
import { startContainer } from "../lib/engine/start.ts";
import { discardRelease, NEVER_SERVED_GRACE, putOnStandby, stopContainer } from "../lib/engine/stop.ts";
import { NginxReloadError } from "../lib/errors.ts";
import { drainNginx } from "../lib/nginx/drain.ts";
import { loadKey } from "../lib/nginx/load.ts";
import { switchNginx } from "../lib/nginx/switch.ts";
import { verifyNginxTraffic } from "../lib/nginx/verify.ts";
import { buildContainer } from "../lib/release/build.ts";
import { tryCanary } from "../lib/release/canary.ts";
import { repairTags } from "../lib/release/color-tags.ts";
import { detectConflicts } from "../lib/release/conflict.ts";
import { checkDiskSpace } from "../lib/release/disk.ts";
import { healthCheck } from "../lib/release/health.ts";
import { checkHooks, runFailureHook, runHook } from "../lib/release/hooks.ts";
import { checkIdleConnections } from "../lib/release/idle-connections.ts";
import { isUnchanged } from "../lib/release/if-changed.ts";
import { markActive } from "../lib/release/mark.ts";
import { checkMemory, warnOfApiMemory } from "../lib/release/memory.ts";
import { migrateState } from "../lib/release/migrate.ts";
import { createFolders } from "../lib/release/oauth-folder.ts";
import { findActive } from "../lib/release/observation.ts";
import { checkPortAvailable } from "../lib/release/port.ts";
import { pruneLeftovers, removeUnreleased } from "../lib/release/prune.ts";
import { pullContainer } from "../lib/release/pull.ts";
import { recoverInterruptedRun } from "../lib/release/recovery.ts";
import { keepReleases } from "../lib/release/releases.ts";
import { describeRelease, describeUnchanged } from "../lib/release/result.ts";
import { startServices } from "../lib/release/services.ts";
import { endSessions, keepSessions } from "../lib/release/sessions.ts";
import { checkSharedFolders } from "../lib/release/shared-folders.ts";
import { smokeTest } from "../lib/release/smoke-test.ts";
import { getActiveColor } from "../lib/release/state-file.ts";
import { takeTrafficBack, undo } from "../lib/release/undo.ts";
import { checkVault } from "../lib/release/vault.ts";
import { watchTraffic } from "../lib/release/verdict.ts";
import { type Context, uninterruptible } from "../lib/run/context.ts";
import { type Outcome, runScript } from "../lib/run/script.ts";

const HELP = `Usage: npx tsx scripts/deploy-blue-green.mts [options]

Builds the API, or pulls its image (LOOP_API_IMAGE, --image), and starts it as the idle color. Checks its health and idle
connections, and optionally runs it as a canary (CANARY_PERCENT of the new requests for CANARY_SECONDS). Then switches
nginx to it and verifies it for VERIFY_SECONDS. Then drains the previous color, and stops it unless it still has MCP
sessions. Runs SMOKE_COMMAND before any traffic, and the hooks in HOOKS_PATH; see docs/hooks.md.

During the canary and VERIFY_SECONDS, checks the health through nginx every second, and counts the responses to
clients in nginx's log. Switches nginx back if a health check fails or, after the switch, its response comes from
another color; or if the new color has at least JUDGE_ERRORS (3) responses with a 5xx status, an error rate of at
least JUDGE_PERCENT (5), and a significantly higher error rate than the previous color. The error rate is the share of
a color's responses to clients that have a 5xx status.

  --image REF  pull this image instead of building one: a tag or digest, such as ghcr.io/me/api:1.4; overrides
               LOOP_API_IMAGE
  --if-changed release nothing, and exit with 0, if the new image has the same content as the one that serves
  --keep serving|blue|green|abort
               when both colors run: which one to keep (serving: the one that nginx serves; abort: stop
               nothing and exit with 1); the release then goes to the other. Without this option, the run
               asks; without a terminal it exits with 1
  --dry-run    change nothing; print the steps and their commands
  --accept-empty-vault
               continue although the vault is empty and earlier releases used it; without this option the run
               stops, because the volume may not be mounted
  --quiet      print one line to stdout, at the end
  --verbose    print every docker command and its output
  -h, --help   print this help

Exit codes: 0 done · 1 failed, the previous color still serves · 2 wrong option or setting
            3 manual intervention needed · 4 another run holds the lock
            129, 130, 143 interrupted by SIGHUP, SIGINT (Ctrl-C) or SIGTERM. If the result is "done, interrupted",
            the release is complete: do not repeat it. Otherwise it was undone
Settings:   environment variables override .env.blue-green, which overrides the defaults;
            see .env.blue-green.example
To roll back:  npx tsx scripts/rollback.mts
From cron:     node --import tsx scripts/deploy-blue-green.mts --quiet --keep serving
To build from another folder once:
               LOOP_API_IMAGE= LOOP_API_CONTEXT=/path/to/it npx tsx scripts/deploy-blue-green.mts`;

async function main(context: Context): Promise<Outcome> {
  const { settings, lock } = context;
  await checkHooks(context);
  await migrateState(context); // once, from versions before STATE_DIR
  await checkVault(context);
  await context.inspect("read the color record", () => getActiveColor(settings));
  await checkEngine(context);
  await checkCompose(context);
  await createFolders(context);
  const dataFolder = await checkSharedFolders(context);
  await startServices(context);
  await loadKey(context);
  const found = await recoverInterruptedRun(context, await findActive(context));
  const from = await detectConflicts(context, found);
  const { active } = from;
  const next = getInactiveColor(active);

  const images = await repairTags(context);
  const previous = images[next]?.id;
  await checkDiskSpace(context, images, dataFolder);
  await warnOfApiMemory(context, active);
  // For the next run, if this one is killed.
  lock.record({
    from: active,
    to: next,
    serves: from.serves,
    imageBefore: previous ?? null,
    started: undefined,
    verified: undefined,
  });
  try {
    await runHook(context, "pre-build");
    await (settings.apiImage === undefined
      ? buildContainer(context, next)
      : pullContainer(context, next, settings.apiImage));
    if (await isUnchanged(context, from, next)) {
      await restoreImage(context, next, previous);
      await removeUnreleased(context, "unused");
      return describeUnchanged(context, active, "Nothing new");
    }
    await checkPortAvailable(context, next);
    await endSessions(context); // if the idle color still serves any
    await checkMemory(context, active);
  } catch (error) {
    await undo(context, error, (inner) => restoreImage(inner, next, previous));
  }
  const discard = async (inner: Context): Promise<void> => {
    await discardRelease(inner, next, previous);
    await removeUnreleased(inner, "failed"); // every failed night would leave an image
  };
  try {
    lock.record({ started: true });
    await startContainer(context, next);
    await healthCheck(context, next);
    await checkIdleConnections(context, next);
    await checkVault(context);
    await smokeTest(context);
    await runHook(context, "pre-switch");
  } catch (error) {
    await undo(context, error, async (inner) => {
      await stopContainer(inner, next, NEVER_SERVED_GRACE);
      await discard(inner);
    });
  }
  const traffic = await watchTraffic(context, active, next);
  try {
    await tryCanary(context, from, next, traffic);
    await switchNginx(context, next, settings.sessionSeconds > 0 ? "sessions" : "nothing"); // restores the link if it fails
    await verifyNginxTraffic(context, next, traffic.check);
    lock.record({ verified: true });
    await markActive(context, next);
  } catch (error) {
    traffic.stop();
    if (error instanceof NginxReloadError) throw error; // both colors run; the error says how to continue
    await undo(context, error, async (inner) => {
      await takeTrafficBack(inner, from, next);
      await discard(inner);
    });
  }

  // The release stands. If interrupted, still stop the old color so that only one keeps running.
  const rest = uninterruptible(context);
  const figures = traffic.report();
  await drainNginx(rest, active);
  if (!(await keepSessions(rest, active))) await putOnStandby(rest, active);
  const releases = await keepReleases(rest, next, previous ? [previous] : []);
  await pruneLeftovers(rest, releases);
  await runHook(rest, "post-deploy");
  return { ...(await describeRelease(rest, active, next, releases?.images)), ...figures };
}

await runScript({
  verb: "deploy",
  help: HELP,
  needs: "vault and sources",
  main,
  failed: runFailureHook,
});
