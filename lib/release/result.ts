import { type Color, getInactiveColor } from "../color.ts";
import { type Image, taggedImages } from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import type { Context } from "../run/context.ts";
import type { Outcome } from "../run/script.ts";
import { shortRevision } from "./revision.ts";

function describe(
  context: Context,
  what: string,
  color: Color,
  image: Image | undefined,
  back: string,
): Outcome {
  const id = image?.id.slice(0, 19) ?? "its id could not be read";
  const revision = image?.revision === undefined ? "" : `, revision ${shortRevision(image.revision)}`;
  return {
    did: `${what} ${getInactiveColor(color)} → ${color}: ${imageOf(context.settings, color)} (${id}${revision})`,
    back,
    image: image?.id,
    revision: image?.revision,
  };
}

/** What a deploy ends with: the image and revision that serve now, and how to go back. Never throws. */
export async function describeRelease(context: Context, from: Color, to: Color): Promise<Outcome> {
  // If the images cannot be inspected, a successful run is still a success.
  const images = await taggedImages(context).catch(() => undefined);
  const back = images?.[from]
    ? "Go back with: npx tsx scripts/rollback.mts"
    : "This is the first release: there is nothing to go back to yet";
  return describe(context, "Released", to, images?.[to], back);
}

/** What a rollback to this image ends with. */
export const describeRollback = (
  context: Context,
  to: Color,
  image: Image | undefined,
  what = "Rolled back",
): Outcome => describe(context, what, to, image, "Return with: npx tsx scripts/rollback.mts");
