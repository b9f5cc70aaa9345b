import { COLORS, type Color } from "../color.ts";
import { shellCommand } from "../docker/cli.ts";
import { type Image, inspectImages, tagArgs, taggedImages, tagImage } from "../docker/image.ts";
import { imageOf, repositoryOfStack } from "../docker/names.ts";
import { type KeptRelease, keptReleases, releaseTagOf } from "../docker/release-tags.ts";
import { inspectColor, inspectColors } from "../engine/colors.ts";
import { UsageError } from "../errors.ts";
import { servingColor } from "../nginx/probe.ts";
import type { Context } from "../run/context.ts";
import { type Entry, KILLED, readHistory, stands } from "../run/history.ts";
import type { ActiveState } from "./active.ts";
import { readMarked } from "./state-file.ts";

/** How long an image has served, according to the history. */
export interface Served {
  /** When it last began to, in ms since 1970; now, if it serves and the history does not know since when. */
  sinceMs: number;
  /** For how long, altogether. */
  ms: number;
}

/**
 * How long each image has served, by image id. An image serves until the next successful run. `serving` is the image that serves now:
 * it may be missing in the history, because its run is still in progress or was killed.
 */
export function servedTimes(
  runs: readonly Entry[],
  serving: string | undefined,
  nowMs: number,
): ReadonlyMap<string, Served> {
  const begins = runs
    .filter((run) => (stands(run) || run.result === KILLED) && run.image !== undefined)
    .map(({ image = "", time, seconds = 0 }) => ({ image, atMs: Date.parse(time) + seconds * 1000 }));
  if (serving !== undefined && begins.at(-1)?.image !== serving) begins.push({ image: serving, atMs: nowMs });
  const served = new Map<string, Served>();
  begins.forEach(({ image, atMs }, i) => {
    const endMs = begins[i + 1]?.atMs ?? nowMs;
    const before = served.get(image)?.ms ?? 0;
    served.set(image, { sinceMs: atMs, ms: before + Math.max(0, endMs - atMs) });
  });
  return served;
}

/** Newest first: by when an image last began to serve; without a history, by number. */
export const byNewest =
  (served: ReadonlyMap<string, Served>) =>
  (a: KeptRelease, b: KeptRelease): number =>
    (served.get(b.id)?.sinceMs ?? 0) - (served.get(a.id)?.sinceMs ?? 0) || b.release - a.release;

/** Where an image was pulled from, according to the history; undefined if it was built here. */
export const sourceOf = (runs: readonly Entry[], image: string | undefined): string | undefined =>
  image === undefined ? undefined : runs.findLast((run) => run.image === image && run.source)?.source;

/** A release that a rollback can go back to. */
export interface Release extends KeptRelease {
  image: Image;
  /** Where the image was pulled from; undefined if it was built here. */
  source: string | undefined;
  /** Undefined when the history does not know. */
  served: Served | undefined;
  /** The color whose container has this image; undefined when neither has. */
  color: Color | undefined;
  /** It serves now, as seen through nginx. */
  serves: boolean;
}

/** The releases that a rollback can go back to, the newest first. Changes nothing. Throws DockerError. */
export async function listReleases(context: Context, nowMs = Date.now()): Promise<Release[]> {
  const { settings } = context;
  const [kept, runs, containers, serving] = await Promise.all([
    keptReleases(context),
    readHistory(settings.historyFile),
    inspectColors(context),
    servingColor(context),
  ]);
  if (kept.length === 0) return [];
  const served = servedTimes(runs, serving && containers[serving].image, nowMs);
  const images = await inspectImages(
    context,
    kept.map(({ release }) => releaseTagOf(settings, release)),
  );
  return kept
    .flatMap((one, i) => {
      const image = images[i];
      if (!image) return []; // a run has just removed it
      const has = (color: Color | undefined) => color !== undefined && containers[color].image === one.id;
      const serves = has(serving);
      return [
        {
          ...one,
          image,
          source: sourceOf(runs, one.id),
          served: served.get(one.id),
          color: serves ? serving : COLORS.find(has),
          serves,
        },
      ];
    })
    .sort(byNewest(served));
}

/** Finds a release by its number. Throws UsageError when there is none, DockerError. */
export const findRelease = (context: Context, release: number): Promise<KeptRelease> =>
  context.inspect(`find release ${release}`, async () => {
    const kept = await keptReleases(context);
    const found = kept.find((one) => one.release === release);
    if (found) return found;
    throw new UsageError(`There is no release ${release}`, {
      details: kept.length > 0 ? `Kept: ${kept.map((one) => one.release).join(", ")}.` : "None is kept.",
      next: "See the kept releases: npx tsx scripts/rollback.mts --list. Nothing was changed.",
    });
  });

/** Does this release serve? Without a release, false. Throws DockerError. */
export async function servesRelease(
  context: Context,
  { active, serves }: ActiveState,
  release: KeptRelease | undefined,
): Promise<boolean> {
  return release !== undefined && serves && (await inspectColor(context, active)).image === release.id;
}

/** What decides which releases are kept. */
export interface ReleaseState {
  kept: readonly KeptRelease[];
  images: Readonly<Record<Color, Image | undefined>>;
  runs: readonly Entry[];
  /** The image of the marked color. */
  marked: string | undefined;
}

/** Reads what decides which releases are kept. Throws DockerError, StateFileError. */
export async function readReleaseState(context: Context): Promise<ReleaseState> {
  const { settings } = context;
  const [kept, images, color, runs] = await Promise.all([
    keptReleases(context),
    taggedImages(context),
    readMarked(settings),
    readHistory(settings.historyFile),
  ]);
  return { kept, images, runs, marked: color && images[color]?.id };
}

/** The images of good releases among the color tags and `more`, oldest first: the marked one, and those in the history. */
function goodImages({ images, runs, marked }: ReleaseState, more: readonly string[]): string[] {
  const tagged = COLORS.flatMap((color) => images[color]?.id ?? []);
  const others = [...more, ...tagged].filter(
    (id) => id !== marked && runs.some((run) => stands(run) && run.image === id),
  );
  return marked === undefined ? others : [...others, marked];
}

/**
 * Gives each good image that has no release number the next number, as a tag that keeps it: the marked color's image, and images
 * from versions before release numbers, which only color tags or `more` still name. Returns the state after that; undefined in a dry
 * run and after a failure. Never throws: a release without a number is still valid.
 */
export async function keepReleases(
  context: Context,
  color: Color,
  more: readonly string[] = [],
): Promise<ReleaseState | undefined> {
  const { settings, log } = context;
  let state: ReleaseState | undefined;
  const keep = async (): Promise<void> => {
    try {
      const before = await readReleaseState(context);
      const kept = [...before.kept];
      for (const id of goodImages(before, more)) {
        if (kept.some((one) => one.id === id)) continue;
        const release = (kept.at(-1)?.release ?? 0) + 1;
        await tagImage(context, id, releaseTagOf(settings, release));
        kept.push({ release, id });
      }
      state = { ...before, kept };
    } catch (error) {
      log.warn(`the release was not given a number: ${error}`);
    }
  };
  const tag = `${repositoryOfStack(settings)}:release-N`;
  await context.change("keep the release", keep, [
    shellCommand(context, tagArgs(imageOf(settings, color), tag)),
  ]);
  return state;
}
