import { lstat, readlink } from "node:fs/promises";
import { join } from "node:path";
import { COLORS, type Color, getInactiveColor } from "../color.ts";
import { LinkError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { replaceLink } from "../util/atomic.ts";

/**
 * The upstream file of a color: a target of the active link. With `keepsOther`, the other color still serves its own
 * sessions.
 */
export const upstreamOf = (color: Color, keepsOther = false): string =>
  `${color}-upstream${keepsOther ? "-sessions" : ""}.conf`;

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
    return COLORS.find((color) => [upstreamOf(color), upstreamOf(color, true)].includes(target)) ?? target;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new LinkError(`${link} is not a readable symbolic link`, {
      details: String(error),
      next: `Move it away and run this again to create a link to ${upstreamOf("blue")} or ${upstreamOf("green")}. Nothing was changed.`,
    });
  }
}

/** The color that still serves its own sessions after a switch to the other one. */
export interface KeptColor {
  color: Color;
  /** When the switch was, in ms since 1970. */
  sinceMs: number;
}

/** The kept color, according to the active link; undefined when there is none. Never throws. */
export async function readKept({ settings }: Pick<Context, "settings">): Promise<KeptColor | undefined> {
  const link = activeUpstream(settings);
  try {
    const [target, { mtimeMs }] = await Promise.all([readlink(link), lstat(link)]);
    const active = COLORS.find((color) => target === upstreamOf(color, true));
    return active && { color: getInactiveColor(active), sinceMs: mtimeMs };
  } catch {
    return undefined;
  }
}

/**
 * Points the link at the serving color. A run killed between swap and reload leaves a link to a color that is stopped, and the
 * next restart of nginx would follow it. Throws what the file system throws.
 */
export const repairLink = ({ settings }: Context, serving: Color, keepsOther = false): Promise<void> =>
  replaceLink(activeUpstream(settings), upstreamOf(serving, keepsOther));
