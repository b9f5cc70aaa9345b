import { statfs } from "node:fs/promises";
import type { Color } from "../color.ts";
import { dataFolder } from "../docker/engine.ts";
import type { Image } from "../docker/image.ts";
import { freeSpaceInside } from "../docker/services.ts";
import { DiskSpaceError } from "../errors.ts";
import type { Context } from "../run/context.ts";

/** Bytes in words. */
export const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

interface Space {
  bytes?: number;
  words: string;
}

/**
 * Free bytes where Docker keeps its data, also in words. An engine in a VM, or on another host, is asked from inside nginx's
 * container, whose file system is on that disk. Unknown when nginx does not run either.
 */
export const freeSpace = async (context: Context): Promise<Space> =>
  freeSpaceIn(context, await dataFolder(context));

async function freeSpaceIn(context: Context, folder: string): Promise<Space> {
  const disk = await statfs(folder).catch(() => undefined);
  const bytes = disk ? disk.bavail * disk.bsize : await freeSpaceInside(context);
  if (bytes === undefined) return { words: `free space in ${folder || "Docker's data folder"} is unknown` };
  return { bytes, words: `${gib(bytes)} free in ${folder}` };
}

/**
 * Requires room for an image as large as the last one: a full disk would break more than the build. `folder` is the engine's
 * data folder. If the free space is unknown, says so and continues. Returns the free space. Throws DiskSpaceError, DeadlineError.
 */
export const checkDiskSpace = (
  context: Context,
  { blue, green }: Readonly<Record<Color, Image | undefined>>,
  folder: string,
): Promise<Space> =>
  context.inspect("check the disk space", async () => {
    const { bytes, words } = await freeSpaceIn(context, folder);
    const needed = Math.max(blue?.bytes ?? 0, green?.bytes ?? 0);
    if (bytes === undefined) {
      context.log.info(words);
      return { words };
    }
    if (bytes >= needed) return { bytes, words };
    const act = context.settings.apiImage === undefined ? "build" : "pull";
    throw new DiskSpaceError(`Not enough disk space to ${act}: ${words}`, {
      details: `The last image took ${gib(needed)}.`,
      next: "Free some space (docker system df shows what Docker uses) and run this again; nothing was changed.",
    });
  });
