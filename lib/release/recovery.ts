import { type Color, getInactiveColor } from "../color.ts";
import { restoreImage } from "../docker/image.ts";
import { inspectColor } from "../engine/colors.ts";
import { discardRelease, NEVER_SERVED_GRACE, putOnStandby, stopContainer } from "../engine/stop.ts";
import { InterruptedError, ToolError } from "../errors.ts";
import { readCanary, readKept } from "../nginx/link.ts";
import { loadPorts } from "../nginx/load.ts";
import { newestLoaded, nginxReaches, probeLoadedColor, servingColor } from "../nginx/probe.ts";
import { switchNginx } from "../nginx/switch.ts";
import { type Context, uninterruptible } from "../run/context.ts";
import { addToHistory, KILLED } from "../run/history.ts";
import { howItEnded, type RunRecord } from "../run/record.ts";
import { pollUntil } from "../util/poll.ts";
import type { ActiveState } from "./active.ts";
import { endCanary } from "./canary.ts";
import { markActive } from "./mark.ts";
import { prove, startIfStopped } from "./proof.ts";
import { keepReleases } from "./releases.ts";
import { retire } from "./retire.ts";
import { endSessionsLater, keptColor, servesSessions } from "./sessions.ts";
import { readMarked } from "./state-file.ts";

/** Seconds that the marked color may take to become healthy before the other one gets the traffic. */
const RESCUE_SECONDS = 15;

/** Seconds for the other color after that. It could boot while the marked one was polled. */
const OTHER_SECONDS = 2;

/**
 * Repairs what an interrupted run left, or a restart that woke a paused color. The verified color gets or keeps the traffic.
 * The other is drained and put on standby, unless it still serves its sessions. After an interrupted deploy, its image tag
 * returns to the last good build. It asks nothing, because it is known why both colors run. If neither is healthy and neither
 * belongs to an interrupted release, that is left to `detectConflicts`.
 * Returns the state after that. Throws UnverifiedError, and what its steps throw.
 */
export async function recoverInterruptedRun(context: Context, found: ActiveState): Promise<ActiveState> {
  const { settings, lock, log } = context;
  const unfinished = lock.unfinished();
  const marked = await readMarked(settings);
  if (unfinished) log.warn(`${howItEnded(unfinished)}: repairing what it left`);
  // Otherwise both were started by hand.
  const explained =
    (await keptColor(context)) !== undefined ||
    (await readCanary(context)) !== undefined ||
    unfinished?.to !== undefined ||
    unfinished?.verb === "end-sessions" ||
    settings.standby === "paused";
  await endCanary(uninterruptible(context), found.active); // before anything stops the canary
  if (found.bothRun && !explained) return found;
  const rescued = found.rescue.length > 0 ? await rescue(context, found) : found;
  const ofRelease = unfinished?.verb === "deploy" && unfinished.to === getInactiveColor(rescued.active);
  if (rescued.bothRun && !rescued.serves && !ofRelease) return rescued;
  const state = await prove(context, rescued);
  const { active, bothRun, proof } = state;
  const inner = uninterruptible(context);
  const other = getInactiveColor(active);
  const leaves = proof === "leave"; // then the other color is the target of the run
  // After a switch back, no color is kept: what was just released failed, or was never verified.
  const keeps = await servesSessions(context, other);
  if (found.bothRun && bothRun && !unfinished && !keeps)
    log.warn(
      `${other} runs beside ${active}: it was probably paused, and then started by a restart of Docker`,
    );
  if (bothRun && !leaves && !keeps) {
    // Killed between link and reload, nginx still sends the sessions of this color there.
    const isKept = (await readKept(context))?.color === other;
    if (!isKept && (await probeLoadedColor(settings)).kept === other) await switchNginx(inner, active);
    // A build that is about to be discarded is no standby. Paused, it would keep its memory until the next release of this color.
    const fails = unfinished?.to === other && unfinished.started && isUndone(unfinished, [marked]);
    await retire(inner, other, fails ? stopContainer : putOnStandby);
  }
  if (keeps && unfinished && !context.options.dryRun) endSessionsLater(); // nobody may have started it
  // Unhealthy, and the only one that runs: to discard its build, it must be stopped.
  if (unfinished && !bothRun && !state.serves && found.rescue.includes(other))
    await stopContainer(inner, other);
  // A marked release is kept, even if it is not the healthy one now.
  if (unfinished) await finishRecovery(inner, unfinished, [active, marked]);
  return { ...state, bothRun: bothRun && leaves };
}

/** Does the next run undo what an interrupted one did to the image of its color? Not for a color in `keep`: that one stands. */
const isUndone = ({ to, imageBefore }: RunRecord, keep: readonly (Color | undefined)[]): boolean =>
  imageBefore !== undefined && !keep.includes(to);

/** Discards the build of an interrupted run, unless it is of a color in `keep`, and clears the run's record. Throws what its steps throw. */
export async function finishRecovery(
  context: Context,
  record: RunRecord,
  keep: readonly (Color | undefined)[],
): Promise<void> {
  const { lock } = context;
  const { verb, to, imageBefore, started } = record;
  const stands = to !== undefined && keep.includes(to); // it was killed after its mark
  if (to && isUndone(record, keep))
    await (started ? discardRelease : restoreImage)(context, to, imageBefore ?? undefined);
  if (stands && verb === "deploy") await keepReleases(context, to, imageBefore ? [imageBefore] : []);
  await context.change("clear the record of the interrupted run", async () => {
    lock.clearUnfinished();
    // A run that was not killed could write its own history entry.
    if (!record.result) await addKilledRun(context, record, stands ? to : undefined);
  });
}

/** Adds a killed run to the history, with the image of the color that it had marked. Never throws. */
async function addKilledRun(
  context: Context,
  { verb, since, updated = since, from, to, source }: RunRecord,
  marked: Color | undefined,
): Promise<void> {
  try {
    const image = marked && (await inspectColor(context, marked)).image;
    const seconds = (Date.parse(updated) - Date.parse(since)) / 1000;
    const message = marked ? `Killed after it had marked ${marked}` : "Killed before it finished";
    const run = { time: since, verb, from, to, source, result: KILLED, message };
    const entry = marked ? { ...run, image, seconds } : run;
    await addToHistory(context.settings.historyFile, entry);
  } catch (error) {
    context.log.warn(`the killed run could not be added to the history: ${error}`);
  }
}

/**
 * Neither color serves: the marked color gets the traffic if it is healthy within RESCUE_SECONDS; it is started first if it
 * is stopped. Otherwise another running color gets the traffic, as an emergency measure, and must still be proven.
 */
async function rescue(context: Context, state: ActiveState): Promise<ActiveState> {
  const [first, ...others] = state.rescue;
  if (!first) return state;
  const start = await startForRescue(context, first);
  const isHealthy = async (color: Color): Promise<boolean> =>
    (await servingColor(context)) === color || (await nginxReaches(context, color));
  let healthy: Color | undefined;
  // It may still be booting, as after a restart of the host.
  await context.inspect("find a healthy color", async () => {
    // If nginx was stopped, a dry run leaves it stopped, so these checks could only time out.
    if (context.options.dryRun && (await newestLoaded(context.settings)) === undefined) return;
    if (start !== "impossible" && (await pollUntil(RESCUE_SECONDS, () => isHealthy(first)))) healthy = first;
    for (const other of others)
      if (!healthy && (await pollUntil(OTHER_SECONDS, () => isHealthy(other)))) healthy = other;
  });
  if (start === "started" && healthy !== first) await stopContainer(context, first, NEVER_SERVED_GRACE);
  if (!healthy) return state;
  const color = healthy;
  if ((await servingColor(context)) !== color) {
    context.log.warn(`neither color serves, but ${color} is healthy: switching nginx to it`);
    await switchNginx(context, color);
  }
  const isMarked = color === state.marked;
  if (isMarked && (await readMarked(context.settings)) !== color) await markActive(context, color);
  const bothRun = color === first ? others.length > 0 : state.bothRun;
  return { ...state, active: color, serves: true, proof: isMarked ? "nothing" : "verify", bothRun };
}

/** Starts a color that does not run. Throws InterruptedError, and unexpected errors. */
async function startForRescue(context: Context, color: Color): Promise<"runs" | "started" | "impossible"> {
  try {
    if (!(await startIfStopped(context, color))) return "runs";
    await loadPorts(context);
    return "started";
  } catch (error) {
    if (!(error instanceof ToolError) || error instanceof InterruptedError) throw error;
    context.log.warn(`${color} cannot be started: ${error.message}`);
    return "impossible";
  }
}
