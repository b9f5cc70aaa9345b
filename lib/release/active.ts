import { COLORS, type Color, getInactiveColor } from "../color.ts";
import type { State } from "../engine/colors.ts";
import type { RunRecord } from "../run/record.ts";

/** What nginx, the containers, the link and the mark say, and what an interrupted run was doing. */
export interface Observation {
  /** The color of a healthy response through nginx; undefined when there is none. */
  nginx: Color | undefined;
  containers: Readonly<Record<Color, State>>;
  /** The color that the active link points at, or its raw target; undefined when there is no link. */
  link: string | undefined;
  /** The color that was marked last; undefined when none was. */
  file: Color | undefined;
  /** The run that was interrupted before this one; undefined when the last run ended. */
  interrupted?: InterruptedRun | undefined;
}

/** The part of an interrupted run's record that decides. */
export type InterruptedRun = Pick<RunRecord, "verb" | "to" | "verified" | "result">;

/**
 * What must happen before the serving color counts as active.
 * - `nothing`: it is marked, or a run recorded that it verified it in full.
 * - `go back`: a deploy was interrupted before it had verified it; the marked color gets the traffic back.
 * - `verify or go back`: a rollback was interrupted, or an owner switched by hand after a failed reload.
 * - `verify`: nothing explains why it serves, or no color was ever marked, so no better color is known.
 * - `leave`: the run moves away from it. Only `forRollback` sets this.
 * - `done`: this run verified it. Only `prove` sets this.
 */
export type Proof = "nothing" | "go back" | "verify or go back" | "verify" | "leave" | "done";

/** The color the run starts from, and what must be repaired first. */
export interface ActiveState {
  active: Color;
  /** It was seen to serve through nginx, so that "it serves again" can be proven. */
  serves: boolean;
  /** The color that was marked last, or whose verification was recorded; undefined when there is none. */
  marked: Color | undefined;
  /** What must happen before it may be marked. */
  proof: Proof;
  /** The other color runs as well. That is resolved before anything is built over it. */
  bothRun: boolean;
  /** When neither color serves: the colors that may get the traffic at once. The first healthy one does; the marked one is first. */
  rescue: readonly Color[];
  /** What disagrees and must be repaired. */
  wrong: readonly ("link" | "file")[];
}

function proofOf(color: Color, { file, link, interrupted }: Observation): Proof {
  const explained = interrupted?.to === color;
  if (color === file || (explained && interrupted.verified)) return "nothing";
  if (file === undefined || !explained) return "verify";
  // After a failed reload the link names the other color. If it names this one, the owner switched by hand, as the error
  // suggests. If not, this one may have failed its clients, and only the way back failed.
  const isByHand = interrupted.result === "NginxReloadError" && link === color;
  return interrupted.verb === "deploy" && !isByHand ? "go back" : "verify or go back";
}

/**
 * Decides which color is active when nginx, the containers, the link and the mark disagree. The first matching row counts.
 * `·` is anything, X one color and Y the other; "record" is that of an interrupted run. A color whose full verification is
 * recorded counts as marked. Every repair is reported.
 *
 * | nginx serves | X       | Y       | link | marked | record       | active | what the run does |
 * |--------------|---------|---------|------|--------|--------------|--------|-------------------|
 * | X            | ·       | running | ·    | X      | ·            | X      | resolves that both run, X keeps the traffic until then; repairs the link |
 * | X            | ·       | ·       | ·    | X      | ·            | X      | releases to Y; repairs the link |
 * | Y            | ·       | ·       | ·    | X      | deploy to Y  | Y      | switches nginx back to X and discards Y's build; if X is unhealthy, as two rows below |
 * | Y            | ·       | ·       | ·    | X      | rollback to Y, or failed reload with the link at Y | Y | verifies Y in full and marks it; if that fails, switches nginx back to X |
 * | Y            | ·       | ·       | ·    | X or none | none, or other | Y | verifies Y in full and marks it; if that fails, exit 3, nothing changed |
 * | neither      | running | ·       | ·    | X      | ·            | X      | gives the traffic to X if healthy; else to Y if it runs and is healthy, as in the row above; then resolves that both run |
 * | neither      | not     | running | ·    | X      | ·            | X      | starts X; then the same |
 * | neither      | not     | not     | ·    | X      | ·            | X      | releases to Y |
 * | neither      | running | not     | ·    | none   | ·            | X      | gives the traffic to X if healthy, and verifies it in full; else releases to Y |
 * | neither      | =       | =       | X    | none   | ·            | X      | resolves that both run; else releases to Y |
 * | neither      | =       | =       | none or other | none | ·     | blue   | releases to green: the first release |
 */
export function resolveActive(observation: Observation): ActiveState {
  const { nginx, containers, link, file, interrupted } = observation;
  const running = COLORS.filter((color) => containers[color] === "running");
  const marked = (interrupted?.verified ? interrupted.to : undefined) ?? file;
  if (nginx !== undefined) {
    const wrong = [
      ...(link === nginx ? [] : (["link"] as const)),
      ...(file === nginx ? [] : (["file"] as const)),
    ];
    const bothRun = containers[getInactiveColor(nginx)] === "running";
    const proof = proofOf(nginx, observation);
    return { active: nginx, serves: true, marked, proof, bothRun, rescue: [], wrong };
  }
  const linked = link === "blue" || link === "green" ? link : undefined;
  const [only] = running.length === 1 ? running : [];
  const active = marked ?? only ?? linked ?? "blue";
  const rescue = running.length === 0 ? [] : [active, ...running.filter((color) => color !== active)];
  return {
    active,
    serves: false,
    marked,
    proof: "nothing",
    bothRun: running.length === 2,
    rescue,
    wrong: [],
  };
}

/**
 * The state as a rollback sees it. It moves away from the serving color, so that color needs no proof, unless the run only
 * finishes an earlier rollback (`finishes`). An interrupted release is undone instead, because that is the way back. So is
 * everything that is not verified when another image takes the place of the idle color's (`replaces`): the marked color must
 * never be replaced.
 */
export function forRollback(
  state: ActiveState,
  interrupted: InterruptedRun | undefined,
  { finishes, replaces = false }: { finishes: boolean; replaces?: boolean },
): ActiveState {
  if (state.proof === "nothing" || finishes) return state;
  const ofRelease = interrupted?.verb === "deploy" && interrupted.to === state.active;
  const goesBack = (ofRelease || replaces) && state.marked !== undefined;
  return { ...state, proof: goesBack ? "go back" : "leave" };
}
