import { type Color, getInactiveColor } from "../color.ts";
import { inspectColor, logsCommand, startByHand, stopByHand } from "../engine/colors.ts";
import { findRestart, restartContainer } from "../engine/start.ts";
import { NEVER_SERVED_GRACE, stopContainer } from "../engine/stop.ts";
import { InterruptedError, NginxReloadError, NotBackError, ToolError, UnverifiedError } from "../errors.ts";
import { switchBack, switchCommands, switchNginx } from "../nginx/switch.ts";
import { verifyNginxTraffic } from "../nginx/verify.ts";
import type { Context } from "../run/context.ts";
import type { ActiveState } from "./active.ts";
import { repairTags } from "./color-tags.ts";
import { healthCheck } from "./health.ts";
import { markActive } from "./mark.ts";

/**
 * Makes sure that the serving color was verified in full before the run relies on it: a build that fails a moment later also
 * gives one healthy response. Returns the state after that. Throws UnverifiedError when neither color can be proven (the
 * serving color keeps serving), InterruptedError, NginxReloadError, StateFileError.
 */
export async function prove(context: Context, state: ActiveState): Promise<ActiveState> {
  const { active, proof } = state;
  const other = getInactiveColor(active);
  switch (proof) {
    case "nothing":
    case "leave":
    case "done":
      return state;
    case "go back":
      context.log.warn(`${active} serves, but its release was never fully verified: going back to ${other}`);
      try {
        return await goBack(context, state);
      } catch (error) {
        const why = recoverable(error);
        context.log.warn(`${other} cannot take over, so ${active} is verified instead: ${why.message}`);
        if (why instanceof NotBackError) await switchNginx(context, active);
        return accept(context, state).catch((worse) => giveUp(context, state, [why, recoverable(worse)]));
      }
    case "verify or go back":
      context.log.warn(`${active} serves, but was never fully verified: verifying it`);
      try {
        return await accept(context, state);
      } catch (error) {
        const why = recoverable(error);
        context.log.warn(`${active} failed, going back to ${other}: ${why.message}`);
        return goBack(context, state).catch((worse) => giveUp(context, state, [why, recoverable(worse)]));
      }
    case "verify":
      context.log.warn(`${active} serves, but no run has verified it: verifying it`);
      return accept(context, state).catch((error) => giveUp(context, state, [recoverable(error)]));
  }
}

/** An error after which the other color may still take over; any other is thrown. */
function recoverable(error: unknown): ToolError {
  const fatal = [InterruptedError, NginxReloadError].some((kind) => error instanceof kind);
  if (error instanceof ToolError && !fatal) return error;
  throw error;
}

/** Verifies the serving color in full and marks it. Throws VerifyError, InterruptedError, StateFileError. */
async function accept(context: Context, state: ActiveState): Promise<ActiveState> {
  await verifyNginxTraffic(context, state.active);
  await markActive(context, state.active);
  return { ...state, proof: "done", wrong: [] };
}

/** Gives the traffic back to the other color once it is healthy, and starts it if it does not run. Throws what its steps throw. */
async function goBack(context: Context, state: ActiveState): Promise<ActiveState> {
  const to = getInactiveColor(state.active);
  const started = await startIfStopped(context, to);
  try {
    await healthCheck(context, to);
  } catch (error) {
    if (started) await stopContainer(context, to, NEVER_SERVED_GRACE);
    throw error;
  }
  const back = { active: to, serves: true };
  await switchBack(context, back);
  return { ...state, ...back, proof: "nothing", bothRun: true, wrong: [] };
}

/** Starts a color that does not run; returns whether it had to. Throws NothingToRollBackToError, DockerError. */
export async function startIfStopped(context: Context, color: Color): Promise<boolean> {
  const { status } = await inspectColor(context, color);
  if (["running", "restarting"].includes(status)) return false; // recreating it would stop it
  const images = await repairTags(context);
  await restartContainer(context, color, await findRestart(context, color, images[color]));
  return true;
}

/** Throws UnverifiedError, which says how to continue by hand. */
function giveUp(context: Context, { active, marked }: ActiveState, why: readonly ToolError[]): never {
  const logs = (color: Color): string => logsCommand(context, color);
  const byHand = marked
    ? `To go back to ${marked} by hand: ${startByHand(context, marked)} && ${switchCommands(context, marked).join(" && ")}`
    : `To release without it: ${stopByHand(context, active)}`;
  throw new UnverifiedError(`${active} serves, but could not be verified, so it was not marked as active`, {
    details: why.map(({ message, details }) => [message, details].filter(Boolean).join("\n")).join("\n"),
    next: `See why: ${[active, ...(marked && marked !== active ? [marked] : [])].map(logs).join("; ")}
Fix the cause and run this again. Nothing was built or removed.
${byHand}`,
  });
}
