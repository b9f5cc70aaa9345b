import { type Color, getInactiveColor } from "../color.ts";
import { type Image, inspectImage, taggedImages } from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import { inspectColor } from "../engine/colors.ts";
import type { Context } from "../run/context.ts";
import { readHistory } from "../run/history.ts";
import type { Outcome } from "../run/script.ts";
import { describeSource } from "./pull.ts";
import { sourceOf } from "./releases.ts";
import { shortRevision } from "./revision.ts";

const GO_BACK = "Go back with: npx tsx scripts/rollback.mts";

/** An image for people: its tag, where it was pulled from or its id, and its revision. */
function inWords(
  context: Context,
  color: Color,
  image: Image | undefined,
  source: string | undefined,
): string {
  const id = image?.id.slice(0, 19) ?? "its id could not be read";
  const revision = image?.revision === undefined ? "" : `, revision ${shortRevision(image.revision)}`;
  return `${imageOf(context.settings, color)} (${source ? describeSource(source) : id}${revision})`;
}

function describe(
  context: Context,
  what: string,
  color: Color,
  image: Image | undefined,
  source: string | undefined,
  back: string,
): Outcome {
  return {
    did: `${what} ${getInactiveColor(color)} → ${color}: ${inWords(context, color, image, source)}`,
    back,
    image: image?.id,
    revision: image?.revision,
  };
}

/** What a deploy ends with: the image and revision that serve now, and how to go back. `known`: both images. Never throws. */
export async function describeRelease(
  context: Context,
  from: Color,
  to: Color,
  known: Readonly<Record<Color, Image | undefined>> | undefined,
): Promise<Outcome> {
  // If the images cannot be inspected, a successful run is still a success.
  const images = known ?? (await taggedImages(context).catch(() => undefined));
  const back = images?.[from] ? GO_BACK : "This is the first release: there is nothing to go back to yet";
  return describe(context, "Released", to, images?.[to], context.lock.recorded().source, back);
}

/** What a rollback to this image ends with. */
export async function describeRollback(
  context: Context,
  to: Color,
  image: Image | undefined,
  what = "Rolled back",
): Promise<Outcome> {
  const source = sourceOf(await readHistory(context.settings.historyFile), image?.id);
  return describe(context, what, to, image, source, "Return with: npx tsx scripts/rollback.mts");
}

/** What a run ends with that changed nothing, because `color` serves what it was to release. Never throws. */
export async function describeUnchanged(context: Context, color: Color, what: string): Promise<Outcome> {
  const image = await inspectColor(context, color)
    .then((container) => inspectImage(context, container.image))
    .catch(() => undefined);
  const source = sourceOf(await readHistory(context.settings.historyFile), image?.id);
  return {
    did: `${what}: ${color} serves ${inWords(context, color, image, source)}`,
    image: image?.id,
    revision: image?.revision,
    changedNothing: true,
  };
}
