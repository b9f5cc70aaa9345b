import { statfs } from "node:fs/promises";
import { COLORS, type Color } from "./color.ts";
import { dataFolder } from "./docker/engine.ts";
import { buildImage, taggedImage } from "./docker/image.ts";
import { BuildError, DeadlineError, DiskSpaceError } from "./errors.ts";
import { sourceRevision } from "./revision.ts";
import type { Stack } from "./stack.ts";

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** Free bytes where Docker keeps its data, also in words; not known when that cannot be seen from here, as with a remote engine. */
export async function freeSpace(stack: Stack): Promise<{ bytes?: number; words: string }> {
  const folder = await dataFolder(stack);
  const disk = await statfs(folder).catch(() => undefined);
  if (!disk) return { words: `free space in ${folder || "Docker's data folder"} unknown` };
  const bytes = disk.bavail * disk.bsize;
  return { bytes, words: `${gib(bytes)} free in ${folder}` };
}

/**
 * Is there room for an image as large as the last one? A full disk would stop more than the build.
 * Where that cannot be seen, it says so and goes on. Throws DiskSpaceError, DeadlineError.
 */
export async function checkDiskSpace(stack: Stack): Promise<void> {
  const [{ bytes, words }, ...images] = await Promise.all([
    freeSpace(stack),
    ...COLORS.map((color) => taggedImage(stack, color)),
  ]);
  const needed = Math.max(...images.map((image) => image?.bytes ?? 0));
  if (bytes === undefined) return stack.log.info(words);
  if (bytes >= needed) return;
  throw new DiskSpaceError(`Not enough disk space to build: ${words}`, {
    details: `The last image took ${gib(needed)}.`,
    next: "Make room (docker system df shows what Docker takes), then run this again; nothing was changed.",
  });
}

/**
 * Spec `build_container`: builds the image of one color and labels it with its source revision, in BUILD_SECONDS at most, or until the run is interrupted.
 * Throws BuildError with the output and the free disk space, InterruptedError.
 */
export async function buildContainer(stack: Stack, color: Color): Promise<void> {
  const revision = await sourceRevision(stack.settings.apiContext);
  const { succeeded, output } = await buildImage(stack, color, revision).catch(async (error) => {
    if (!(error instanceof DeadlineError)) throw error;
    throw new BuildError(`The build did not end within ${stack.settings.buildSeconds} s and was ended`, {
      details: `${error.details}\n${(await freeSpace(stack)).words}`,
      next: "See in the output what it waits for, or set BUILD_SECONDS higher, then deploy again; nothing that serves was touched.",
    });
  });
  stack.signal.throwIfAborted();
  if (succeeded) return;
  throw new BuildError("Build failed, check disk space on NAS", {
    details: `${output}\n${(await freeSpace(stack)).words}`,
    next: "Mend what the output shows and deploy again; nothing that serves was touched.",
  });
}
