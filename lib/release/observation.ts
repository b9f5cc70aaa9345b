import { COLORS } from "../color.ts";
import { colorStates } from "../engine/colors.ts";
import { readLink, repairLink } from "../nginx/link.ts";
import { loadedForOther, probeLoadedColor, servingColor } from "../nginx/probe.ts";
import { switchCommands } from "../nginx/switch.ts";
import type { Context } from "../run/context.ts";
import { type ActiveState, type Observation, resolveActive } from "./active.ts";
import { markActive } from "./mark.ts";
import { readMarked, repairStateFile } from "./state-file.ts";

/** Collects what `resolveActive` needs. Throws StateFileError, LinkError, DockerError. */
async function observe(context: Context): Promise<Observation> {
  const [nginx, containers, link, file] = await Promise.all([
    servingColor(context),
    colorStates(context),
    readLink(context),
    readMarked(context.settings),
  ]);
  return { nginx, containers, link, file, interrupted: context.lock.unfinished() };
}

/**
 * Finds the active color and repairs what disagrees with it, so that a run which fails later leaves it repaired. A serving
 * color that is not proven yet is only reported. Throws StateFileError, LinkError, DockerError, NginxReloadError.
 */
export async function findActive(context: Context): Promise<ActiveState> {
  const { log } = context;
  const observation = await context.inspect("find the active color", () => observe(context));
  const state = resolveActive(observation);
  const { active, serves, proof, wrong, bothRun } = state;
  // When the traffic is about to go back, a link that already points there is correct.
  if (wrong.includes("link") && proof !== "go back") {
    if (observation.link !== undefined)
      log.warn(`the active link points at ${observation.link}, but nginx serves ${active}: correcting it`);
    const otherGets = bothRun ? loadedForOther(await probeLoadedColor(context.settings)) : "nothing";
    await context.change(
      "correct the active link",
      () => repairLink(context, active, otherGets),
      switchCommands(context, active, otherGets).slice(0, 1),
    );
  }
  if (wrong.includes("file") && proof === "nothing") {
    log.warn(
      `${observation.file ?? "no color"} is marked as active, but ${active} serves and was verified: marking ${active}`,
    );
    await markActive(context, active);
  }
  if (serves && proof === "nothing") await repairStateFile(context, active);
  const known =
    observation.file !== undefined || COLORS.some((color) => observation.containers[color] !== "absent");
  if (!serves && known) log.warn("neither color serves: there is no healthy response through nginx");
  return state;
}
