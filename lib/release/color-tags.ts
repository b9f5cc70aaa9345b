import { COLORS, type Color } from "../color.ts";
import { shellCommand } from "../docker/cli.ts";
import { type Image, inspectImages, tagArgs, taggedImages, tagImage } from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import { type KeptRelease, releaseTagOf } from "../docker/release-tags.ts";
import { inspectColors } from "../engine/colors.ts";
import type { Context } from "../run/context.ts";

/** Makes the image of a release the image of a color. Throws DockerError. */
export const tagRelease = (context: Context, color: Color, { release, id }: KeptRelease): Promise<void> => {
  const tag = imageOf(context.settings, color);
  return context.change(
    `use the image of release ${release} for ${color}`,
    () => tagImage(context, id, tag),
    [shellCommand(context, tagArgs(releaseTagOf(context.settings, release), tag))],
  );
};

/**
 * The images of both colors. Puts a tag back that `docker image prune --all` has removed: of an image that a container uses, it
 * keeps only one tag. Throws DockerError.
 */
export async function repairTags(context: Context): Promise<Record<Color, Image | undefined>> {
  const { settings } = context;
  const images = await taggedImages(context);
  const missing = COLORS.filter((color) => images[color] === undefined);
  if (missing.length === 0) return images;
  const containers = await inspectColors(context);
  const candidates = missing.filter(
    (color) => containers[color].image !== "" && !containers[color].discarded,
  );
  // A container keeps its image, but a service without replicas here does not.
  if (candidates.length === 0) return images;
  const there = await inspectImages(
    context,
    candidates.map((color) => containers[color].image),
  );
  const lost = candidates.filter((_, i) => there[i] !== undefined);
  for (const color of lost) {
    const [tag, { image }] = [imageOf(settings, color), containers[color]];
    context.log.warn(
      `${tag} was removed, but the container of ${color} still has its image: tagging it again`,
    );
    await context.change(`tag the image of ${color}`, () => tagImage(context, image, tag), [
      shellCommand(context, tagArgs(image, tag)),
    ]);
  }
  return lost.length === 0 ? images : taggedImages(context);
}
