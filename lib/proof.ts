import type { Truth } from "./active.ts";
import { type Color, getInactiveColor } from "./color.ts";
import { containerOf, inspectColor } from "./docker/container.ts";
import { findRestart, restartContainer } from "./docker/start.ts";
import { NEVER_SERVED_GRACE, stopContainer } from "./docker/stop.ts";
import { InterruptedError, NginxReloadError, NotBackError, ToolError, UnverifiedError } from "./errors.ts";
import { healthCheck, healthCommands } from "./health.ts";
import { mark } from "./mark.ts";
import { nginxCommands } from "./nginx/commands.ts";
import { switchBack, switchCommands, switchNginx } from "./nginx/switch.ts";
import { verifyNginxTraffic } from "./nginx/traffic.ts";
import type { Stack } from "./stack.ts";

/**
 * Sees to it that what serves was verified in full before anything goes by it: one healthy answer is also what a build gives
 * that turns sick a moment later. Gives what is true then. Throws UnverifiedError when neither color can be proven, what
 * serves goes on then; InterruptedError, NginxReloadError, and what marking throws.
 */
export async function prove(stack: Stack, truth: Truth): Promise<Truth> {
  const { active, proof } = truth;
  const other = getInactiveColor(active);
  switch (proof) {
    case "nothing":
    case "leave":
    case "done":
      return truth;
    case "go back":
      stack.log.warn(`${active} serves, but its release was not verified to the end: going back to ${other}`);
      try {
        return await goBack(stack, truth);
      } catch (error) {
        const why = wayOut(error);
        stack.log.warn(`${other} does not take over, so ${active} is verified: ${why.message}`);
        if (why instanceof NotBackError) await moveTo(stack, active);
        return accept(stack, truth).catch((worse) => giveUp(stack, truth, [why, wayOut(worse)]));
      }
    case "verify or go back":
      stack.log.warn(`${active} serves, but was not verified to the end: verifying it`);
      try {
        return await accept(stack, truth);
      } catch (error) {
        const why = wayOut(error);
        stack.log.warn(`${active} is not well, going back to ${other}: ${why.message}`);
        return goBack(stack, truth).catch((worse) => giveUp(stack, truth, [why, wayOut(worse)]));
      }
    case "verify":
      stack.log.warn(`${active} serves, and no run has verified it: verifying it`);
      return accept(stack, truth).catch((error) => giveUp(stack, truth, [wayOut(error)]));
  }
}

/** An error after which the other color may still be the way out; any other is thrown. */
function wayOut(error: unknown): ToolError {
  const none = [InterruptedError, NginxReloadError].some((kind) => error instanceof kind);
  if (error instanceof ToolError && !none) return error;
  throw error;
}

const moveTo = (stack: Stack, color: Color): Promise<void> =>
  stack.step(`switch nginx to ${color}`, () => switchNginx(stack, color), switchCommands(stack, color));

/** Verifies in full the color that serves, and marks it. Throws VerifyError, InterruptedError, StateFileError. */
async function accept(stack: Stack, truth: Truth): Promise<Truth> {
  const { active } = truth;
  const { verify } = nginxCommands(stack, getInactiveColor(active), active);
  await stack.step(`verify ${active} through nginx`, () => verifyNginxTraffic(stack, active), verify);
  await mark(stack, active);
  return { ...truth, proof: "done", wrong: [] };
}

/** Sends the traffic back to the marked color, started if need be, once it is healthy, and sees it serve. Throws what its steps throw. */
async function goBack(stack: Stack, truth: Truth): Promise<Truth> {
  const to = getInactiveColor(truth.active);
  const started = await startAgain(stack, to);
  try {
    await stack.step(`check the health of ${to}`, () => healthCheck(stack, to), healthCommands(stack, to));
  } catch (error) {
    if (started) await stopAgain(stack, to);
    throw error;
  }
  const back = { active: to, serves: true };
  await stack.step(`switch nginx back to ${to}`, () => switchBack(stack, back), switchCommands(stack, to));
  return { ...truth, ...back, proof: "nothing", bothRun: true, wrong: [] };
}

/** Starts a color where it does not run; tells whether it had to. Throws NothingToRollBackToError, DockerError. */
export async function startAgain(stack: Stack, color: Color): Promise<boolean> {
  const { status } = await inspectColor(stack, color);
  if (["running", "restarting"].includes(status)) return false; // to make it anew would be to stop it
  const restart = await findRestart(stack, color);
  await stack.step(`start ${color} again`, () => restartContainer(stack, color, restart), [restart.command]);
  return true;
}

/** Stops a color that was only started to see whether it is well. */
export const stopAgain = (stack: Stack, color: Color): Promise<void> =>
  stack.step(`stop ${color}`, () => stopContainer(stack, color, NEVER_SERVED_GRACE));

/** Throws UnverifiedError, which tells how to go on by hand. */
function giveUp(stack: Stack, { active, marked }: Truth, why: readonly ToolError[]): never {
  const { settings } = stack;
  const logs = (color: Color): string =>
    `${settings.dockerCmd} logs --tail 50 ${containerOf(settings, color)}`;
  const byHand = marked
    ? `To go back to ${marked} by hand: ${settings.dockerCmd} start ${containerOf(settings, marked)} && ${switchCommands(stack, marked).join(" && ")}`
    : `To release without it: ${settings.dockerCmd} stop ${containerOf(settings, active)}`;
  throw new UnverifiedError(`${active} serves, but could not be verified, so it was not marked as active`, {
    details: why.map(({ message, details }) => [message, details].filter(Boolean).join("\n")).join("\n"),
    next: `See why with: ${[active, ...(marked && marked !== active ? [marked] : [])].map(logs).join("; ")}
Mend it, then run this again. Nothing was built or removed.
${byHand}`,
  });
}
