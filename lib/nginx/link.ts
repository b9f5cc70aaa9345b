import { lstat, readlink } from "node:fs/promises";
import { join } from "node:path";
import { COLORS, type Color, getInactiveColor } from "../color.ts";
import { LinkError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { replaceLink } from "../util/atomic.ts";

/**
 * What the other color gets: nothing; its own sessions, after a switch; or, before a switch, a share of the new requests, as a
 * canary.
 */
const OTHER_GETS = ["nothing", "sessions", "canary"] as const;
export type OtherGets = (typeof OTHER_GETS)[number];

/** The upstream file of an active color: a target of the active link. */
export const upstreamOf = (active: Color, otherGets: OtherGets = "nothing"): string =>
  `${active}-upstream${otherGets === "nothing" ? "" : `-${otherGets}`}.conf`;

/** What a target of the active link means; undefined for any other target. */
export function parseTarget(target: string): { active: Color; otherGets: OtherGets } | undefined {
  const routes = COLORS.flatMap((active) => OTHER_GETS.map((otherGets) => ({ active, otherGets })));
  return routes.find(({ active, otherGets }) => upstreamOf(active, otherGets) === target);
}

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
    return parseTarget(target)?.active ?? target;
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
    const route = parseTarget(target);
    return route?.otherGets === "sessions"
      ? { color: getInactiveColor(route.active), sinceMs: mtimeMs }
      : undefined;
  } catch {
    return undefined;
  }
}

/** The canary, according to the active link; undefined when there is none. Never throws. */
export async function readCanary({ settings }: Pick<Context, "settings">): Promise<Color | undefined> {
  const route = parseTarget(await readlink(activeUpstream(settings)).catch(() => ""));
  return route?.otherGets === "canary" ? getInactiveColor(route.active) : undefined;
}

/**
 * Points the link at the serving color. A run killed between swap and reload leaves a link to a color that is stopped, and the
 * next restart of nginx would follow it. Throws what the file system throws.
 */
export const repairLink = ({ settings }: Context, serving: Color, otherGets?: OtherGets): Promise<void> =>
  replaceLink(activeUpstream(settings), upstreamOf(serving, otherGets));
