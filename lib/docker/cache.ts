import type { Stack } from "../stack.ts";
import { z } from "../zod.ts";
import { act, expectSuccess } from "./engine.ts";

/** A record of the engine's build cache; times in ms since 1970. */
export interface CacheRecord {
  id: string;
  created: number;
  used: number;
  inUse: boolean;
}

const CacheRecords = z.array(
  z.object({ ID: z.string(), CreatedAt: z.string(), LastUsedAt: z.string(), InUse: z.string() }),
);

/** Docker writes times as 2030-01-31 03:00:00.123456789 +0100 CET. */
const timeOf = (text: string): number =>
  Date.parse(text.replace(/^(\S+) (\d+:\d+:\d+)(\.\d{1,3})?\d* ([+-]\d\d)(\d\d).*/, "$1T$2$3$4:$5"));

/** Reads what `docker system df` says of the build cache, as JSON. Throws what zod throws. */
export const readCacheRecords = (json: string): CacheRecord[] =>
  CacheRecords.parse(JSON.parse(json) ?? []).map(({ ID, CreatedAt, LastUsedAt, InUse }) => ({
    id: ID.replace("*", ""),
    created: timeOf(CreatedAt),
    used: timeOf(LastUsedAt) || timeOf(CreatedAt), // while it is being made it was not used yet
    inUse: InUse === "true",
  }));

/** The engine's whole build cache, of all projects. Throws DockerError. */
export async function listBuildCache(stack: Stack): Promise<CacheRecord[]> {
  const output = await act(stack, ["system", "df", "--verbose", "--format", "{{json .BuildCache}}"]);
  expectSuccess(output, "looking at the build cache", "See whether Docker is well: docker system df");
  return readCacheRecords(output.stdout);
}

/** Removes one record of the build cache, unless another needs it. Throws DeadlineError. */
export async function removeFromBuildCache(stack: Stack, id: string): Promise<void> {
  await act(stack, ["builder", "prune", "--force", "--all", "--filter", `id=${id}`]);
}
