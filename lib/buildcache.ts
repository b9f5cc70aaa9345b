import { type CacheRecord, listBuildCache, removeFromBuildCache } from "./docker/cache.ts";
import { pruneImages } from "./docker/image.ts";
import { type Entry, readHistory, stands } from "./history.ts";
import type { Stack } from "./stack.ts";

/** More than a release leaves; a cache that has grown over a year goes away over some nights. */
const REMOVED_AT_ONCE = 100;

/** Times in ms since 1970. */
type Span = readonly [from: number, to: number];

/**
 * The records that builds of this stack have made and that nothing, here or in another project, has used since the last
 * release began. A record does not say whose it is; the history says when this stack was building.
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

/**
 * Removes from the engine's build cache what the builds of this stack have left there, once two releases have not used it:
 * a year of nightly builds fills a disk. Never throws: it is tried again after the next release.
 */
async function pruneBuildCache(stack: Stack): Promise<void> {
  try {
    const stale = staleRecords(await listBuildCache(stack), await readHistory(stack.settings.historyFile));
    for (const { id } of stale.slice(0, REMOVED_AT_ONCE)) await removeFromBuildCache(stack, id);
  } catch (error) {
    stack.log.info(`the build cache was not looked through: ${error}`);
  }
}

/** Removes the images and the build cache that old releases of this stack have left. Never throws. */
export async function pruneLeftovers(stack: Stack): Promise<void> {
  await pruneImages(stack);
  await pruneBuildCache(stack);
}
