import { type CacheRecord, listBuildCache, removeFromBuildCache } from "../docker/build-cache.ts";
import { shellCommand } from "../docker/cli.ts";
import { listReferences, pruneArgs, pruneImages, type Reference, removeReference } from "../docker/image.ts";
import { repositoryOf } from "../docker/pull.ts";
import { releaseTagOf } from "../docker/release-tags.ts";
import type { Context } from "../run/context.ts";
import { type Entry, readHistory, stands } from "../run/history.ts";
import { byNewest, type ReleaseState, readReleaseState, servedTimes } from "./releases.ts";

/** More records than one release leaves. A cache that grew for a year is removed over several nights. */
const REMOVED_AT_ONCE = 100;

/** Times in ms since 1970. */
type Span = readonly [from: number, to: number];

/**
 * The build cache records that this stack's builds made and that nothing, in any project, has used since the last release
 * began. A record does not name its project, but the history says when this stack was building.
 */
export function staleRecords(records: readonly CacheRecord[], runs: readonly Entry[]): CacheRecord[] {
  const deploys = runs.filter(({ verb }) => verb === "deploy");
  const last = deploys.findLast(stands);
  if (!last) return [];
  const keepSince = Date.parse(last.time);
  const spans = deploys.map(
    ({ time, seconds = 0 }): Span => [Date.parse(time), Date.parse(time) + seconds * 1000],
  );
  const isOurs = ({ created }: CacheRecord): boolean =>
    spans.some(([from, to]) => created >= from && created <= to);
  return records.filter((record) => !record.inUse && record.used < keepSince && isOurs(record));
}

/** Removes this stack's build cache that two releases have not used. Never throws: it is tried again after the next release. */
async function pruneBuildCache(context: Context): Promise<void> {
  try {
    const runs = await readHistory(context.settings.historyFile);
    const stale = staleRecords(await listBuildCache(context), runs);
    for (const { id } of stale.slice(0, REMOVED_AT_ONCE)) await removeFromBuildCache(context, id);
  } catch (error) {
    context.log.info(`the build cache was not pruned: ${error}`);
  }
}

/** Pulled images that are looked at; those of older runs were removed after an earlier release. */
const SOURCES_LOOKED_AT = 50;

/**
 * The references that pulls have left to images that nothing needs: their digest, and their tag, unless it names another image
 * by now. `sources`: what was pulled, oldest first. A killed pull knows no digest, and its tag may be the owner's.
 */
export function staleReferences(
  sources: readonly string[],
  references: readonly Reference[],
  needed: ReadonlySet<string>,
): string[] {
  const newest = [...new Set([...sources].reverse())].slice(0, SOURCES_LOOKED_AT);
  return newest.flatMap((source) => {
    const [tagged = "", digest] = source.split("@");
    const repository = repositoryOf(tagged);
    const own = references.filter((one) => one.repository === repository);
    const id = digest && own.find((one) => one.digest === digest)?.id;
    if (!id || needed.has(id)) return [];
    const tags = own.filter((one) => one.id === id && `${repository}:${one.tag}` === tagged);
    return [...tags.map(({ tag }) => `${repository}:${tag}`), `${repository}@${digest}`];
  });
}

/**
 * Removes the tags of older releases. Keeps the newest KEEP_RELEASES and the images of both colors. Also removes the references that
 * runs have pulled, unless they name a kept image: nothing else would remove them. Throws DockerError.
 */
async function pruneReleases(context: Context, state: ReleaseState): Promise<void> {
  const { settings } = context;
  const { kept, images, runs, marked } = state;
  const served = servedTimes(runs, marked, Date.now());
  const newest = [...kept].sort(byNewest(served)).slice(0, settings.keepReleases);
  const needed = new Set([...newest, ...Object.values(images)].flatMap((one) => one?.id ?? []));
  for (const { release, id } of kept)
    if (!needed.has(id)) await removeReference(context, releaseTagOf(settings, release));
  const pulled = [...runs, context.lock.recorded()].flatMap(({ source }) => source ?? []);
  if (pulled.length === 0) return;
  for (const reference of staleReferences(pulled, await listReferences(context), needed))
    await removeReference(context, reference);
}

async function pruneAllImages(context: Context, state?: ReleaseState): Promise<void> {
  try {
    await pruneReleases(context, state ?? (await readReleaseState(context)));
  } catch (error) {
    context.log.warn(`old releases were not removed: ${error}`);
  }
  await pruneImages(context);
}

/** Removes the image that a run will not release, as far as no container uses it. Never throws. */
export const removeUnreleased = (context: Context, which: "failed" | "unused"): Promise<void> =>
  context.change(`remove the ${which} image`, () => pruneAllImages(context), [
    shellCommand(context, pruneArgs(context)),
  ]);

/** Removes the images and the build cache that old releases left: nightly builds would fill a disk in a year. Never throws. */
export const pruneLeftovers = (context: Context, state: ReleaseState | undefined): Promise<void> => {
  const prune = async (): Promise<void> => {
    await pruneAllImages(context, state);
    await pruneBuildCache(context);
  };
  return context.change("remove old images and build cache", prune, [
    shellCommand(context, pruneArgs(context)),
  ]);
};
