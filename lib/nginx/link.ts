import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { COLORS, type Color } from "../color.ts";
import { LinkError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { replaceLink } from "../util/atomic.ts";

/** The upstream file of a color: a target of the active link. */
export const upstreamOf = (color: Color): string => `${color}-upstream.conf`;

/** The active link, which nginx reads at start and reload. */
export const activeUpstream = ({ nginxFolder }: Settings): string =>
  join(nginxFolder, "active-upstream.conf");

/**
 * The color that the active link points at, or its raw target if that is no color; undefined when there is no link.
 * Throws LinkError when something else is in its place: somebody put it there, and a switch would replace it.
 */
export async function readLink({ settings }: Context): Promise<string | undefined> {
  const link = activeUpstream(settings);
  try {
    const target = await readlink(link);
    return COLORS.find((color) => target === upstreamOf(color)) ?? target;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new LinkError(`${link} is not a readable symbolic link`, {
      details: String(error),
      next: `Move it away and run this again to create a link to ${upstreamOf("blue")} or ${upstreamOf("green")}. Nothing was changed.`,
    });
  }
}

/**
 * Points the link at the serving color. A run killed between swap and reload leaves a link to a color that is stopped, and the
 * next restart of nginx would follow it. Throws what the file system throws.
 */
export const repairLink = ({ settings }: Context, serving: Color): Promise<void> =>
  replaceLink(activeUpstream(settings), upstreamOf(serving));
