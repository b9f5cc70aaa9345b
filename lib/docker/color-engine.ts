import type { Api } from "../api.ts";
import type { Color } from "../color.ts";
import type { Context } from "../run/context.ts";
import type { Answer } from "../util/http-probe.ts";
import type { Output } from "./cli.ts";
import type { Container } from "./container.ts";

/** The answer of a color itself. */
export interface OwnAnswer extends Answer {
  /** The addresses of the replicas; nginx must get a healthy response from each. Undefined for a color with a single address. */
  addresses?: readonly string[];
}

/**
 * What runs the colors: containers of Compose on this machine, or services of a swarm. Release logic knows only colors;
 * each engine's directory has the rest. A function that returns an `Output` throws DeadlineError, and DockerError if a step before its
 * main command fails. The caller checks the exit code of that command.
 */
export interface ColorEngine {
  /** The name of the color's container or service, for messages. */
  nameOf(context: Context, color: Color): string;
  /** Both colors as they are now, and `more` containers by name. Throws DockerError. */
  inspectColors<Key extends string = never>(
    context: Context,
    more?: Readonly<Record<Key, string>>,
  ): Promise<Record<Color | Key, Container>>;
  /** May this machine release these colors? Throws UsageError if not, DockerError. */
  checkPlace(context: Context): Promise<void>;
  /** Connects nginx to the network of the colors, if it is not connected yet. Throws UsageError, DockerError. */
  connect(context: Context, nginx: Container): Promise<void>;
  /** Before a build: checks that every node will be able to pull the image. Throws UsageError if not, DockerError. */
  checkBuild(context: Context): Promise<void>;
  /** Can this container of a color be started as it is, or must it be recreated? */
  canStart(context: Context, color: Color, container: Container): boolean;
  /** Starts what exists of a color, or continues what is paused. */
  start(context: Context, color: Color, container: Container): Promise<Output>;
  startCommand(context: Context, color: Color, container?: Container): string;
  /** Makes a color anew from the image that its tag names, for this API, and starts it. */
  recreate(context: Context, color: Color, container: Container, api: Api): Promise<Output>;
  recreateCommand(context: Context, color: Color): string;
  /** Stops a color within `grace` seconds, or the time that the compose file gives it. */
  stop(context: Context, color: Color, grace?: number): Promise<Output>;
  stopCommand(context: Context, color: Color, grace?: number): string;
  /** Puts a color on standby for STANDBY=paused: it is back at once. */
  pause(context: Context, color: Color): Promise<Output>;
  pauseCommand(context: Context, color: Color): string;
  /** Marks a color as a failed release, so that a rollback recreates it instead of starting it. */
  discard(context: Context, color: Color): Promise<Output>;
  /** The arguments of the docker command that prints a color's last log lines. */
  logsArgs(context: Context, color: Color, lines: number): string[];
  /** Its host port; undefined if it has none. */
  portOf(context: Context, color: Color): number | undefined;
  /** Is a color ready for requests, as far as can be seen without nginx? Never throws. */
  probe(context: Context, color: Color, api: Api, timeout: number): Promise<OwnAnswer>;
  /** What `probe` asks, for a dry run. */
  probeCommand(context: Context, color: Color, api: Api): string;
}
