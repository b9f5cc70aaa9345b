import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Settings } from "../settings.ts";
import { replaceFile } from "../util/atomic.ts";

type Folder = Pick<Settings, "nginxFolder">;

/** The file with the share of a canary. */
export const shareFile = ({ nginxFolder }: Folder): string => join(nginxFolder, "canary.conf");

/** The content of `nginx/canary.conf`: which requests a canary would get. */
const renderShare = (percent: number): string =>
  `# Written by each run before a canary; manual changes are overwritten.
split_clients $request_id $in_canary {
    ${percent}% 1;
    * 0;
}
`;

/** Writes the share of a canary for the next reload of nginx. Throws what the file system throws. */
export const writeShare = (settings: Pick<Settings, "nginxFolder" | "canary">): Promise<void> =>
  replaceFile(shareFile(settings), renderShare(settings.canary.percent));

/** The percentage that the last canary got; undefined if there was none. Never throws. */
export async function readShare(settings: Folder): Promise<number | undefined> {
  const content = await readFile(shareFile(settings), "utf8").catch(() => "");
  const [, percent] = content.match(/ ([\d.]+)% 1;/) ?? [];
  return percent === undefined ? undefined : Number(percent);
}
