import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { replaceLink } from "../atomic.ts";
import { COLORS, type Color } from "../color.ts";
import { LinkError } from "../errors.ts";
import type { Settings } from "../settings.ts";
import type { Stack } from "../stack.ts";

/** The file that sends the traffic to a color, and what the active link points at. */
export const upstreamOf = (color: Color): string => `${color}-upstream.conf`;

/** The active link: what nginx reads at start and reload. */
export const activeUpstream = ({ nginxFolder }: Settings): string =>
  join(nginxFolder, "active-upstream.conf");

/**
 * Where the active link points: the name of a color, or else its target as it stands; undefined when there is none.
 * Throws LinkError when something else than a link is in its place: somebody put it there, and a switch would replace it.
 */
export async function readLink({ settings }: Stack): Promise<string | undefined> {
  const link = activeUpstream(settings);
  try {
    const target = await readlink(link);
    return COLORS.find((color) => target === upstreamOf(color)) ?? target;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new LinkError(`${link} is not a link that can be read`, {
      details: String(error),
      next: `Move it away, then run this again; a link to ${upstreamOf("blue")} or ${upstreamOf("green")} will be made. Nothing was changed.`,
    });
  }
}

/**
 * Makes the link agree with what nginx serves: a run that was killed between swap and reload leaves a link that the next
 * restart of nginx would follow, to a color that is stopped. Throws what the file system throws.
 */
export const repairLink = ({ settings }: Stack, serving: Color): Promise<void> =>
  replaceLink(activeUpstream(settings), upstreamOf(serving));
