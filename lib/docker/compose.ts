import { type Api, apiSettings } from "../api.ts";
import type { Color } from "../color.ts";
import type { Context } from "../run/context.ts";
import { checkComposeFiles, getHostPort } from "../settings.ts";
import { probeHealth } from "../util/http-probe.ts";
import { ACT_SECONDS, act, compose as composeArgs, docker, shellCommand } from "./cli.ts";
import type { ColorEngine } from "./color-engine.ts";
import { type Container, inspectAll, NEVER } from "./container.ts";
import { containerOf, serviceOf } from "./names.ts";

/** The arguments that recreate a color's container from its image and start it, and nothing else. */
const upArgs = (context: Context, color: Color): string[] =>
  composeArgs(
    context,
    "up",
    // Without the last one, a volume of the image would bring files of the previous release along, its code included.
    ...["-d", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", "--renew-anon-volumes"],
    serviceOf(color),
  );

const startArgs = ({ settings }: Context, color: Color, container?: Container): string[] => [
  container?.status === "paused" ? "unpause" : "start",
  containerOf(settings, color),
];

const stopArgs = ({ settings }: Context, color: Color, grace?: number): string[] => [
  "stop",
  ...(grace === undefined ? [] : ["--time", String(grace)]),
  containerOf(settings, color),
];

const pauseArgs = ({ settings }: Context, color: Color): string[] => ["pause", containerOf(settings, color)];

/** The URL of a color's health path on its own port. */
const urlOf = ({ settings }: Context, color: Color, api: Api): string =>
  `http://127.0.0.1:${getHostPort(settings, color)}${api.healthPath}`;

/** Each color is a container of Compose on this machine, with a port of its own. */
export const compose: ColorEngine = {
  nameOf: ({ settings }, color) => containerOf(settings, color),

  inspectColors: <Key extends string>(context: Context, more = {} as Readonly<Record<Key, string>>) => {
    const { settings } = context;
    const colors = { blue: containerOf(settings, "blue"), green: containerOf(settings, "green") };
    return inspectAll<Color | Key>(context, { ...more, ...colors });
  },

  checkPlace: async () => undefined,
  connect: async () => undefined,
  checkBuild: async () => undefined,
  canStart: ({ settings }, color, { ports }) => ports.includes(getHostPort(settings, color)),
  start: (context, color, container) => act(context, startArgs(context, color, container)),
  startCommand: (context, color, container) => shellCommand(context, startArgs(context, color, container)),

  recreate: async (context, color, { anonymousVolumes }, api) => {
    checkComposeFiles(context.settings);
    // A container on standby may be paused: to stop it, Docker resumes it.
    const output = await docker(context, upArgs(context, color), {
      deadline: ACT_SECONDS,
      environment: apiSettings(api),
    });
    if (output.exitCode === 0 && anonymousVolumes.length > 0)
      await act(context, ["volume", "rm", ...anonymousVolumes]); // what fails stays
    return output;
  },
  recreateCommand: (context, color) => shellCommand(context, upArgs(context, color)),

  stop: (context, color, grace) => act(context, stopArgs(context, color, grace)),
  stopCommand: (context, color, grace) => shellCommand(context, stopArgs(context, color, grace)),
  pause: (context, color) => act(context, pauseArgs(context, color)),
  pauseCommand: (context, color) => shellCommand(context, pauseArgs(context, color)),
  discard: (context, color) =>
    docker(context, ["update", "--restart", NEVER, containerOf(context.settings, color)]),

  logsArgs: ({ settings }, color, lines) => ["logs", "--tail", String(lines), containerOf(settings, color)],

  portOf: ({ settings }, color) => getHostPort(settings, color),
  probe: (context, color, api, timeout) => probeHealth(urlOf(context, color, api), () => api.expect, timeout),
  probeCommand: (context, color, api) => `GET ${urlOf(context, color, api)}`,
};
