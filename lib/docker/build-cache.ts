import type { Context } from "../run/context.ts";
import { pollUntil } from "../util/poll.ts";
import { z } from "../util/zod.ts";
import { ACT_SECONDS, act, expectSuccess } from "./cli.ts";

/** A record of the build cache. Times are in ms since 1970. */
export interface CacheRecord {
  id: string;
  created: number;
  used: number;
  inUse: boolean;
}

const CacheRecords = z.array(
  z.object({ ID: z.string(), CreatedAt: z.string(), LastUsedAt: z.string(), InUse: z.string() }),
);

/** Parses Docker's format: 2030-01-31 03:00:00.123456789 +0100 CET. */
const timeOf = (text: string): number =>
  Date.parse(text.replace(/^(\S+) (\d+:\d+:\d+)(\.\d{1,3})?\d* ([+-]\d\d)(\d\d).*/, "$1T$2$3$4:$5"));

/** Parses the build cache from the JSON of `docker system df`. Throws what zod throws. */
export const readCacheRecords = (json: string): CacheRecord[] =>
  CacheRecords.parse(JSON.parse(json) ?? []).map(({ ID, CreatedAt, LastUsedAt, InUse }) => ({
    id: ID.replace("*", ""),
    created: timeOf(CreatedAt),
    used: timeOf(LastUsedAt) || timeOf(CreatedAt), // a record in the making was never used
    inUse: InUse === "true",
  }));

/** What an engine before 23.0 says while another command asks for the disk usage. */
const BUSY = "a disk usage operation is already running";

/** The engine's whole build cache, of all projects. Throws DockerError. */
export async function listBuildCache(context: Context): Promise<CacheRecord[]> {
  const list = () => act(context, ["system", "df", "--verbose", "--format", "{{json .BuildCache}}"]);
  let output = await list();
  const isListed = async (): Promise<boolean> => {
    if (output.stderr.includes(BUSY)) output = await list();
    return !output.stderr.includes(BUSY);
  };
  await pollUntil(ACT_SECONDS, isListed, 1);
  expectSuccess(output, "listing the build cache", "Check that Docker works: docker system df");
  return readCacheRecords(output.stdout);
}

/** Removes one record of the build cache, unless another record needs it. Throws DeadlineError. */
export async function removeFromBuildCache(context: Context, id: string): Promise<void> {
  await act(context, ["builder", "prune", "--force", "--all", "--filter", `id=${id}`]);
}
