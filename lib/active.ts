import {
  COLORS,
  type Color,
  getInactiveColor,
  markActive,
  markCommands,
  readMarked,
  repairStateFile,
} from "./color.ts";
import { colorStates, type State } from "./docker/container.ts";
import { nginxReaches } from "./health.ts";
import { servingColor } from "./nginx/frontdoor.ts";
import { readLink, repairLink } from "./nginx/link.ts";
import { switchCommands, switchNginx } from "./nginx/switch.ts";
import type { Stack } from "./stack.ts";

/** What the three places say that can disagree, and what runs. */
export interface Seen {
  /** The colour of a healthy answer through nginx; undefined when there is none. */
  nginx: Color | undefined;
  containers: Readonly<Record<Color, State>>;
  /** Where the active link points: a colour, or else its target as it stands; undefined when there is none. */
  link: string | undefined;
  /** Which colour was marked last: see `readMarked`; undefined when none was. */
  file: Color | undefined;
}

/** From which colour a run goes to the other, and what it sets right before. */
export interface Truth {
  active: Color;
  /** Whether it was seen to serve through nginx, so that "it serves again" can be proven. */
  serves: boolean;
  /** Whether the other colour runs as well: nothing is built over it before that is settled. */
  bothRun: boolean;
  /** Nobody serves, and this colour alone runs: if nginx reaches it well, it gets the traffic at once. */
  rescue: boolean;
  /** The places that say otherwise, in words; each is reported, and set right to the active colour. */
  wrong: readonly ("link" | "file")[];
}

/**
 * What is true, when nginx, the containers, the link and the state file disagree. The first row that fits counts; `·` is
 * anything, X one colour and Y the other. "Set right" is reported, never silent.
 *
 * | nginx serves | X       | Y       | link | file | active | what the run does |
 * |--------------|---------|---------|------|------|--------|-------------------|
 * | X            | ·       | running | ·    | ·    | X      | both run: settled first, X keeps the traffic until then; link and file set right |
 * | X            | ·       | ·       | ·    | ·    | X      | releases to Y; link and file set right |
 * | nobody       | running | not     | ·    | ·    | X      | if nginx reaches it well, it gets the traffic at once; else releases to Y; file set right at the mark |
 * | nobody       | running | running | ·    | X    | X      | both run: settled first |
 * | nobody       | running | running | X    | none | X      | both run: settled first |
 * | nobody       | not     | not     | ·    | X    | X      | releases to Y |
 * | nobody       | not     | not     | X    | none | X      | releases to Y |
 * | nobody       | =       | =       | none or else | none | blue | releases to green: the first release |
 */
export function decide({ nginx, containers, link, file }: Seen): Truth {
  const running = COLORS.filter((color) => containers[color] === "running");
  const bothRun = running.length === 2;
  if (nginx !== undefined) {
    const other = containers[getInactiveColor(nginx)] === "running";
    const wrong = [
      ...(link === nginx ? [] : (["link"] as const)),
      ...(file === nginx ? [] : (["file"] as const)),
    ];
    return { active: nginx, serves: true, bothRun: other, rescue: false, wrong };
  }
  const linked = link === "blue" || link === "green" ? link : undefined;
  const [only] = running.length === 1 ? running : [];
  const active = only ?? file ?? linked ?? "blue";
  return { active, serves: false, bothRun, rescue: only !== undefined, wrong: [] };
}

/** Looks at all that `decide` needs. Throws StateFileError, LinkError, DockerError. */
async function lookAround(stack: Stack): Promise<Seen> {
  const [nginx, containers, link, file] = await Promise.all([
    servingColor(stack),
    colorStates(stack),
    readLink(stack),
    readMarked(stack.settings),
  ]);
  return { nginx, containers, link, file };
}

/**
 * Finds out what is true, and sets right what says otherwise, so that also a run that fails later leaves it right.
 * Throws StateFileError, LinkError, DockerError, and what a switch throws.
 */
export async function findActive(stack: Stack): Promise<Truth> {
  const { log } = stack;
  const seen = await stack.look("find the active color", () => lookAround(stack));
  const truth = decide(seen);
  const { active, serves, rescue, wrong } = truth;
  if (wrong.includes("link")) {
    if (seen.link !== undefined)
      log.warn(`the active link points at ${seen.link}, but nginx serves ${active}: set right`);
    await stack.step(
      "set the link right",
      () => repairLink(stack, active),
      switchCommands(stack, active).slice(0, 1),
    );
  }
  if (wrong.includes("file")) {
    if (seen.file !== undefined)
      log.warn(`the state file means ${seen.file}, but nginx serves ${active}: set right`);
    await stack.step(
      "set the state file right",
      () => markActive(stack, active),
      markCommands(stack, active),
    );
  }
  if (serves && !wrong.includes("file")) await repairStateFile(stack, active);
  if (!serves && seen.file !== undefined && seen.file !== active)
    log.warn(`the state file means ${seen.file}, but the only one that runs is ${active}: going by that`);
  if (!rescue || !(await nginxReaches(stack, active))) {
    const known = seen.file !== undefined || COLORS.some((color) => seen.containers[color] !== "absent");
    if (!serves && known) log.warn("nothing was seen to serve: there is no healthy answer through nginx");
    return truth;
  }
  log.warn(`nobody serves, and ${active}, the only one that runs, is well: it gets the traffic`);
  await stack.step(
    `give ${active} the traffic`,
    () => switchNginx(stack, active),
    switchCommands(stack, active),
  );
  return { ...truth, serves: true };
}
