import { type CacheRecord, listBuildCache, removeFromBuildCache } from "../docker/build-cache.ts";
import { shellCommand } from "../docker/cli.ts";
import { pruneArgs, pruneImages } from "../docker/image.ts";
import type { Context } from "../run/context.ts";
import { type Entry, readHistory, stands } from "../run/history.ts";

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

/** Removes the images and the build cache that old releases left: nightly builds would fill a disk in a year. Never throws. */
export const pruneLeftovers = (context: Context): Promise<void> => {
  const prune = async (): Promise<void> => {
    await pruneImages(context);
    await pruneBuildCache(context);
  };
  return context.change("remove old images and build cache", prune, [
    shellCommand(context, pruneArgs(context)),
  ]);
};
