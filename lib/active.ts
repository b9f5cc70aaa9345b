import { COLORS, type Color, getInactiveColor, readMarked, repairStateFile } from "./color.ts";
import { colorStates, type State } from "./docker/container.ts";
import type { Note } from "./lock.ts";
import { mark } from "./mark.ts";
import { servingColor } from "./nginx/frontdoor.ts";
import { readLink, repairLink } from "./nginx/link.ts";
import { switchCommands } from "./nginx/switch.ts";
import type { Stack } from "./stack.ts";

/** What the three places say that can disagree, what runs, and what the run before was about. */
export interface Seen {
  /** The color of a healthy answer through nginx; undefined when there is none. */
  nginx: Color | undefined;
  containers: Readonly<Record<Color, State>>;
  /** Where the active link points: a color, or else its target as it stands; undefined when there is none. */
  link: string | undefined;
  /** The color that was marked last; undefined when none was. */
  file: Color | undefined;
  /** What a run before was about that did not come to its end; undefined when it did. */
  cutOff?: CutOff | undefined;
}

/** What counts of the recovery record of a run. */
export type CutOff = Pick<Note, "verb" | "to" | "verified" | "result">;

/**
 * What must be done before a color that serves is taken for the active one.
 * - `nothing`: it is marked, or a run has recorded that it was verified in full.
 * - `go back`: a deploy was cut off before it had verified it: the marked color gets the traffic back.
 * - `verify or go back`: a rollback was, or an owner switched by hand as a failed reload told them to.
 * - `verify`: nothing explains it, or nothing was ever marked: there is nothing known to be better.
 * - `leave`: it is not to be: the run goes back from it. Only `forWayBack` says so.
 * - `done`: this run has verified it. Only `prove` says so.
 */
export type Proof = "nothing" | "go back" | "verify or go back" | "verify" | "leave" | "done";

/** From which color a run goes to the other, and what it sets right before. */
export interface Truth {
  active: Color;
  /** Whether it was seen to serve through nginx, so that "it serves again" can be proven. */
  serves: boolean;
  /** The color that was marked last, or whose verification was recorded; undefined when none was. */
  marked: Color | undefined;
  /** What is still to be done before it may be marked as active. */
  proof: Proof;
  /** Whether the other color runs as well: nothing is built over it before that is settled. */
  bothRun: boolean;
  /** Nobody serves: these colors may get the traffic at once, the first that is well. The first is the marked one. */
  rescue: readonly Color[];
  /** The places that say otherwise, in words. */
  wrong: readonly ("link" | "file")[];
}

/** What must be done before `color`, which serves, is taken for the active one. */
function proofOf(color: Color, { file, cutOff }: Seen): Proof {
  const explained = cutOff?.to === color;
  if (color === file || (explained && cutOff.verified)) return "nothing";
  if (file === undefined || !explained) return "verify";
  // After a reload that failed the link is back: who serves then was switched to by hand, as the message offers.
  return cutOff.verb === "deploy" && cutOff.result !== "NginxReloadError" ? "go back" : "verify or go back";
}

/**
 * What is true, when nginx, the containers, the link and the mark disagree. The first row that fits counts; `·` is
 * anything, X one color and Y the other; "the record" is that of a run that did not come to its end. A color whose full
 * verification is recorded counts as marked. "Set right" is reported, never silent.
 *
 * | nginx serves | X       | Y       | link | marked | the record   | active | what the run does |
 * |--------------|---------|---------|------|--------|--------------|--------|-------------------|
 * | X            | ·       | running | ·    | X      | ·            | X      | both run: settled first, X keeps the traffic until then; link set right |
 * | X            | ·       | ·       | ·    | X      | ·            | X      | releases to Y; link set right |
 * | Y            | ·       | ·       | ·    | X      | deploy to Y  | Y      | X gets the traffic back, Y's build is discarded; when X is not well, as in the row after the next |
 * | Y            | ·       | ·       | ·    | X      | rollback to Y, or failed reload | Y | verifies Y in full, then marks it; when that fails, X gets the traffic back |
 * | Y            | ·       | ·       | ·    | X or none | none, or else | Y  | verifies Y in full, then marks it; when that fails, exit 3, nothing changed |
 * | nobody       | running | ·       | ·    | X      | ·            | X      | X gets the traffic when it is well; else Y, if it runs and is well: as in the row before. Both run: settled then |
 * | nobody       | not     | running | ·    | X      | ·            | X      | X is started; then the same |
 * | nobody       | not     | not     | ·    | X      | ·            | X      | releases to Y |
 * | nobody       | running | not     | ·    | none   | ·            | X      | X gets the traffic when it is well, and is verified in full; else releases to Y |
 * | nobody       | =       | =       | X    | none   | ·            | X      | both run: settled first; else releases to Y |
 * | nobody       | =       | =       | none or else | none | ·      | blue   | releases to green: the first release |
 */
export function decide(seen: Seen): Truth {
  const { nginx, containers, link, file, cutOff } = seen;
  const running = COLORS.filter((color) => containers[color] === "running");
  const marked = (cutOff?.verified ? cutOff.to : undefined) ?? file;
  if (nginx !== undefined) {
    const wrong = [
      ...(link === nginx ? [] : (["link"] as const)),
      ...(file === nginx ? [] : (["file"] as const)),
    ];
    const bothRun = containers[getInactiveColor(nginx)] === "running";
    return { active: nginx, serves: true, marked, proof: proofOf(nginx, seen), bothRun, rescue: [], wrong };
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
 * The same for a rollback. It wants to leave what serves, so that needs no proof, unless it only finishes the rollback
 * before (`finishes`). A release that was cut off is taken back: that is the way back.
 */
export function forWayBack(truth: Truth, cutOff: CutOff | undefined, finishes: boolean): Truth {
  if (truth.proof === "nothing" || finishes) return truth;
  const ofRelease = cutOff?.verb === "deploy" && cutOff.to === truth.active && truth.marked !== undefined;
  return { ...truth, proof: ofRelease ? "go back" : "leave" };
}

/** Looks at all that `decide` needs. Throws StateFileError, LinkError, DockerError. */
async function lookAround(stack: Stack): Promise<Seen> {
  const [nginx, containers, link, file] = await Promise.all([
    servingColor(stack),
    colorStates(stack),
    readLink(stack),
    readMarked(stack.settings),
  ]);
  return { nginx, containers, link, file, cutOff: stack.lock.unfinished() };
}

/**
 * Finds out what is true, and sets right what says otherwise, so that also a run that fails later leaves it right. What
 * serves and is not proven yet is only reported. Throws StateFileError, LinkError, DockerError, and what a switch throws.
 */
export async function findActive(stack: Stack): Promise<Truth> {
  const { log } = stack;
  const seen = await stack.look("find the active color", () => lookAround(stack));
  const truth = decide(seen);
  const { active, serves, proof, wrong } = truth;
  // Where the traffic is about to go back, a link that points there already is right.
  if (wrong.includes("link") && proof !== "go back") {
    if (seen.link !== undefined)
      log.warn(`the active link points at ${seen.link}, but nginx serves ${active}: set right`);
    await stack.step(
      "set the link right",
      () => repairLink(stack, active),
      switchCommands(stack, active).slice(0, 1),
    );
  }
  if (wrong.includes("file") && proof === "nothing") {
    log.warn(
      `${seen.file ?? "nothing"} is marked as active, but ${active} serves and was verified: set right`,
    );
    await mark(stack, active);
  }
  if (serves && proof === "nothing") await repairStateFile(stack, active);
  const known = seen.file !== undefined || COLORS.some((color) => seen.containers[color] !== "absent");
  if (!serves && known) log.warn("nothing was seen to serve: there is no healthy answer through nginx");
  return truth;
}
