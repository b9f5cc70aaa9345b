import { COLORS, type Color } from "../color.ts";
import { docker, lastLines, shellCommand } from "../docker/cli.ts";
import type { Container } from "../docker/container.ts";
import type { Context } from "../run/context.ts";
import { engineOf } from "./engine.ts";

/** Inspects both colors. Throws DockerError. */
export const inspectColors = (context: Context): Promise<Record<Color, Container>> =>
  engineOf(context).inspectColors(context);

/** Inspects one color. Throws DockerError. */
export const inspectColor = async (context: Context, color: Color): Promise<Container> =>
  (await inspectColors(context))[color];

/** What runs a color, for messages: its container or service. */
export const nameOf = (context: Context, color: Color): string => engineOf(context).nameOf(context, color);

/** The command that shows a color's log, for messages. */
export const logsCommand = (context: Context, color: Color): string =>
  shellCommand(context, engineOf(context).logsArgs(context, color, 50));

/** The commands that start and stop a color, for messages. */
export const startByHand = (context: Context, color: Color): string =>
  engineOf(context).startCommand(context, color);
export const stopByHand = (context: Context, color: Color): string =>
  engineOf(context).stopCommand(context, color);

/** The last log lines of a color, as far as they can be read. Never throws. */
export async function recentLogs(context: Context, color: Color, lines: number): Promise<string> {
  const output = await docker(context, engineOf(context).logsArgs(context, color, lines)).catch(
    () => undefined,
  );
  return output ? lastLines(output.stdall, lines) : "its log cannot be read";
}

/** The state of a color, as far as a release cares. */
export type State = "running" | "stopped" | "absent";

function stateOf({ status }: Container): State {
  if (status === "absent") return "absent";
  return ["running", "restarting"].includes(status) ? "running" : "stopped";
}

/** The state of both colors. A container in a restart loop counts as running, a paused one as stopped. Throws DockerError. */
export async function colorStates(context: Context): Promise<Record<Color, State>> {
  const { blue, green } = await inspectColors(context);
  return { blue: stateOf(blue), green: stateOf(green) };
}

/** The colors that run. Throws DockerError. */
export async function runningColors(context: Context): Promise<Color[]> {
  const states = await colorStates(context);
  return COLORS.filter((color) => states[color] === "running");
}
