import { type Color, getInactiveColor } from "../color.ts";
import { inspectColor } from "../docker/container.ts";
import { DockerError, StopError } from "../errors.ts";
import { drainNginx } from "../nginx/drain.ts";
import { type KeptColor, readKept, repairLink } from "../nginx/link.ts";
import { readSessionUse } from "../nginx/sessions.ts";
import { switchNginx } from "../nginx/switch.ts";
import { startInBackground } from "../run/background.ts";
import { type Context, uninterruptible } from "../run/context.ts";

/**
 * MCP sessions live in the color that created them. After a switch, the previous color keeps running for its own sessions,
 * until none was used for SESSION_IDLE_SECONDS, for SESSION_SECONDS at most. `scripts/end-sessions.mts`, in the background,
 * ends that; so does a deploy, which needs the color for its build. The active link says which color is kept and since when.
 */

/** The state of a kept color's sessions. */
export interface KeptSessions extends KeptColor {
  /** When one of its sessions was last used: at the latest known use, or at the switch. In ms since 1970. */
  usedMs: number;
  /** How many different sessions were used in the last SESSION_IDLE_SECONDS. */
  inUse: number;
  /** Its open requests. */
  open: number;
  /** When it stops serving them, whatever they do. In ms since 1970. */
  untilMs: number;
  /** It is time to end them. */
  due: boolean;
}

/** The kept color, if its container runs. Throws DockerError. */
export async function keptColor(context: Context): Promise<KeptColor | undefined> {
  const kept = await readKept(context);
  return kept && (await inspectColor(context, kept.color)).status === "running" ? kept : undefined;
}

/** The state of the kept color's sessions; undefined when no color is kept. Throws DockerError. */
export async function readKeptSessions(
  context: Context,
  nowMs = Date.now(),
): Promise<KeptSessions | undefined> {
  const { sessionSeconds, sessionIdleSeconds } = context.settings;
  const kept = await keptColor(context);
  if (!kept) return undefined;
  const { usedMs = kept.sinceMs, inUse, open } = await readSessionUse(context, kept.color, kept.sinceMs);
  const lastMs = Math.max(usedMs, kept.sinceMs);
  const untilMs = kept.sinceMs + sessionSeconds * 1000;
  const idle = open === 0 && nowMs - lastMs >= sessionIdleSeconds * 1000;
  // A time in the future means that the clock was set back: when the limit is reached is unknown.
  return {
    ...kept,
    usedMs: lastMs,
    inUse,
    open,
    untilMs,
    due: idle || nowMs >= untilMs || kept.sinceMs > nowMs,
  };
}

/** Has this color created sessions? Throws StopError: the release stands, but the color may neither be stopped nor be forgotten. */
async function hasCreated(context: Context, color: Color): Promise<boolean> {
  try {
    return (await readSessionUse(context, color)).created;
  } catch (error) {
    if (!(error instanceof DockerError)) throw error;
    throw new StopError(`Cannot tell whether ${color} still has sessions, so it was not stopped`, {
      details: `${error.message}\n${error.details}`,
      next: "The other color serves. Once nginx answers again, run: npx tsx scripts/end-sessions.mts",
    });
  }
}

/** Starts the process that ends them. A second one does no harm: the first to act leaves nothing to the other. */
export const endSessionsLater = (): void => startInBackground("end-sessions");

/**
 * After the release of the other color, and when nothing but its sessions uses this one any more: lets it serve them. Returns
 * false when it has none; then it can be stopped at once. Throws StopError, and what the file system throws.
 */
export async function keepSessions(context: Context, color: Color): Promise<boolean> {
  const { settings, log } = context;
  if (settings.sessionSeconds === 0) return false;
  let serves = false;
  const keep = async (): Promise<void> => {
    if ((await readKept(context))?.color !== color) return;
    serves = await hasCreated(context, color);
    // nginx knows no session of it, so it need not be told.
    if (!serves) await repairLink(context, getInactiveColor(color));
  };
  await context.change(`look for sessions of ${color}`, keep, [
    `if there are any, ${color} serves them until none was used for ${settings.sessionIdleSeconds} s, for ${settings.sessionSeconds} s at most`,
  ]);
  if (!serves) return false;
  endSessionsLater();
  log.info(
    `${color} still serves its sessions, until none was used for ${settings.sessionIdleSeconds} s, for ${settings.sessionSeconds} s at most`,
  );
  return true;
}

/**
 * Ends the sessions of the kept color: nginx sends their requests to the active color, which does not know them, so their
 * clients start new ones. Then drains the open requests and stops the color with `stop`. Does nothing when no color is kept.
 * No signal interrupts this, because in between both colors run for no reason that the next run would see.
 * Throws NginxReloadError, StopError, DockerError.
 */
export async function endSessions(
  context: Context,
  stop: (context: Context, color: Color) => Promise<void>,
): Promise<void> {
  const kept = await readKeptSessions(context);
  if (!kept) return;
  const { color, inUse, open } = kept;
  const which = `${inUse} used in the last ${context.settings.sessionIdleSeconds} s, ${open} open requests`;
  context.log.info(`ending the sessions of ${color}: ${which}`);
  const inner = uninterruptible(context);
  await switchNginx(inner, getInactiveColor(color));
  await drainNginx(inner, color);
  await stop(inner, color);
}
