import type { Color } from "../color.ts";
import { inspectImage, taggedImage } from "../docker/image.ts";
import { inspectColor } from "../engine/colors.ts";
import type { Context } from "../run/context.ts";
import type { ActiveState } from "./active.ts";

/**
 * With --if-changed: does the serving color's image have the same content as the one that was just built or pulled for `next`? True
 * for the same digest, and for a build of unchanged sources. False without that option, or if nothing serves. Throws DockerError.
 */
export async function isUnchanged(
  context: Context,
  { active, serves }: ActiveState,
  next: Color,
): Promise<boolean> {
  if (!context.options.ifChanged) return false;
  let unchanged = false;
  const compare = async (): Promise<void> => {
    const { image, status } = await inspectColor(context, active);
    if (!serves || status !== "running") return;
    const [now, built] = await Promise.all([inspectImage(context, image), taggedImage(context, next)]);
    unchanged = now !== undefined && now.content === built?.content;
  };
  await context.change(`compare the image with that of ${active}`, compare, [
    "if both have the same content, end here: nothing new",
  ]);
  return unchanged;
}
