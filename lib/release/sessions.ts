import { type Color, getInactiveColor } from "../color.ts";
import { colorStates } from "../engine/colors.ts";
import { stopContainer } from "../engine/stop.ts";
import { StopError, ToolError } from "../errors.ts";
import { drainSessions } from "../nginx/drain.ts";
import { type KeptColor, readKept, repairLink } from "../nginx/link.ts";
import { readSessionUse, shortenAndReadUse } from "../nginx/sessions.ts";
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

/** The kept color, unless somebody has stopped it. A container in a restart loop is kept too. Throws DockerError. */
export async function keptColor(context: Context): Promise<KeptColor | undefined> {
  const kept = await readKept(context);
  return kept && (await colorStates(context))[kept.color] === "running" ? kept : undefined;
}

/** Is this the kept color, and has it sessions? Throws DockerError. */
export const servesSessions = async (context: Context, color: Color): Promise<boolean> =>
  (await keptColor(context))?.color === color && (await readSessionUse(context, color)).created;

/** A clock that was set back by more than this makes the time of the switch unknown. */
const CLOCK_MS = 60_000;

/**
 * The state of the kept color's sessions; undefined when no color is kept. `busyMs`: when an open request was last seen, in ms
 * since 1970. Throws DockerError.
 */
export async function readKeptSessions(context: Context, busyMs = 0): Promise<KeptSessions | undefined> {
  const { sessionSeconds, sessionIdleSeconds } = context.settings;
  const kept = await keptColor(context);
  if (!kept) return undefined;
  const { usedMs, inUse, open } = await readSessionUse(context, kept.color, kept.sinceMs);
  const nowMs = Date.now();
  const lastMs = Math.max(usedMs, kept.sinceMs, busyMs);
  const untilMs = kept.sinceMs + sessionSeconds * 1000;
  const idle = open === 0 && nowMs - lastMs >= sessionIdleSeconds * 1000;
  const due = idle || nowMs >= untilMs || kept.sinceMs > nowMs + CLOCK_MS;
  return { ...kept, usedMs: lastMs, inUse, open, untilMs, due };
}

/** Starts the process that ends them. A second one does no harm: the first to act leaves nothing to the other. */
export const endSessionsLater = (): void => startInBackground("end-sessions");

/**
 * After the release of the other color, and when nothing but its sessions uses this one any more: lets it serve them. Returns
 * false when it has none; then it can be stopped at once. Throws StopError.
 */
export async function keepSessions(context: Context, color: Color): Promise<boolean> {
  const { settings, log } = context;
  if (settings.sessionSeconds === 0) return false;
  const limits = `until none was used for ${settings.sessionIdleSeconds} s, for ${settings.sessionSeconds} s at most`;
  let serves = false;
  const look = async (): Promise<void> => {
    if ((await readKept(context))?.color === color) serves = await hasSessions(context, color);
  };
  await context.change(`look for sessions of ${color}`, look, [
    `if there are any, ${color} serves them ${limits}`,
  ]);
  if (!serves) return false;
  endSessionsLater();
  log.info(`${color} still serves its sessions, ${limits}`);
  return true;
}

/**
 * Has this color created sessions? If not, the link says so from now on; nginx knows no session of it, so it need not be told.
 * Throws StopError: the release stands, but the color must neither be stopped nor be forgotten.
 */
async function hasSessions(context: Context, color: Color): Promise<boolean> {
  try {
    const { created } = await shortenAndReadUse(context, color);
    if (!created) await repairLink(context, getInactiveColor(color));
    return created;
  } catch (error) {
    const details = error instanceof ToolError ? `${error.message}\n${error.details}` : String(error);
    throw new StopError(`Cannot tell whether ${color} still has sessions, so it was not stopped`, {
      details,
      next: "The other color serves. Fix what it says, then run: npx tsx scripts/end-sessions.mts",
    });
  }
}

/** Ends the sessions of the kept color, if there is one, because this run needs it. Throws what `endSessionsOf` throws. */
export async function endSessions(context: Context): Promise<void> {
  const kept = await readKept(context);
  if (kept) await endSessionsOf(context, kept, stopContainer);
}

/**
 * Ends the sessions of a color: nginx sends their requests to the active color, which does not know them, so their clients
 * start new ones. Then drains the open requests and stops the color with `stop`. No signal interrupts this: in between, both
 * colors run. Throws NginxReloadError, StopError, DockerError.
 */
export async function endSessionsOf(
  context: Context,
  { color, sinceMs }: KeptColor,
  stop: (context: Context, color: Color) => Promise<void>,
): Promise<void> {
  const { inUse, open } = await readSessionUse(context, color, sinceMs);
  const seconds = context.settings.sessionIdleSeconds;
  context.log.info(
    `ending the sessions of ${color}: ${inUse} used in the last ${seconds} s, ${open} open requests`,
  );
  const inner = uninterruptible(context);
  await switchNginx(inner, getInactiveColor(color));
  await drainSessions(inner, color);
  await stop(inner, color);
}
