import { existsSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Api } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import {
  type Image,
  inspectImage,
  inspectImages,
  removeReference,
  taggedImages,
  tagImage,
} from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import { pull } from "../docker/pull.ts";
import { currentApis } from "../engine/apis.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { isFolder } from "../settings-schema.ts";
import { ok, problem, type Verdict } from "./finding.ts";

/** Where a release gets the API's image from. Throws PullError, DeadlineError, DockerError. */
export async function checkSource(context: Context): Promise<Verdict> {
  const { apiImage, apiContext, composeFiles } = context.settings;
  if (apiImage !== undefined) return ok(`${(await pull(context, apiImage)).source} can be pulled`);
  if (!isFolder(apiContext))
    return problem(`LOOP_API_CONTEXT is ${apiContext}, which is not a folder`, "Correct LOOP_API_CONTEXT.");
  const dockerfile = join(apiContext, "Dockerfile");
  if (existsSync(dockerfile)) return ok(`built from ${dockerfile}`);
  const [level, unless] =
    composeFiles.length > 1
      ? ["warning" as const, ", unless a compose file names another Dockerfile"]
      : ["problem" as const, ""];
  return {
    level,
    finding: `${dockerfile} does not exist`,
    next: `Set LOOP_API_CONTEXT to the folder with the API's Dockerfile${unless}.`,
  };
}

/**
 * The image for a trial: the one that a release would pull, or the newest image of a color whose API is reached as the settings
 * say; undefined if there is neither. The other color may have another API. Throws DockerError.
 */
export async function imageToTry(context: Context): Promise<string | undefined> {
  const { settings } = context;
  if (settings.apiImage !== undefined) return settings.apiImage;
  const [images, apis] = await Promise.all([taggedImages(context), currentApis(context)]);
  const builtMs = (color: Color): number => Date.parse(images[color]?.built ?? "1970-01-01");
  const [newest] = COLORS.filter((color) => images[color] && isReachedAs(apis[color], settings.api)).sort(
    (a, b) => builtMs(b) - builtMs(a),
  );
  return newest && imageOf(settings, newest);
}

const isReachedAs = (api: Api, other: Api): boolean =>
  api.port === other.port &&
  api.healthPath === other.healthPath &&
  isDeepStrictEqual(api.expect, other.expect);

/** The images that checks may pull. */
const pulledBy = ({ environment, apiImage }: Settings): string[] => [
  environment.NGINX_IMAGE ?? "",
  ...(apiImage === undefined ? [] : [apiImage]),
];

/** Runs `act`, then removes the images that it pulled and restores the tags that it moved. Throws what `act` throws. */
export async function withoutNewImages<T>(context: Context, act: () => Promise<T>): Promise<T> {
  const names = pulledBy(context.settings);
  const before = await inspectImages(context, names).catch(() => undefined);
  try {
    return await act();
  } finally {
    const { commandSignal: _, ...rest } = context; // after Ctrl-C too
    if (before) for (const [i, name] of names.entries()) await restore(rest, name, before[i]);
  }
}

/** Without --force: an image from which somebody has started a container meanwhile stays. */
async function restore(context: Context, name: string, before: Image | undefined): Promise<void> {
  const now = await inspectImage(context, name).catch(() => undefined);
  if (now === undefined || now.id === before?.id) return;
  try {
    if (before) await tagImage(context, before.id, name);
    await removeReference(context, before ? now.id : name);
  } catch (error) {
    context.log.warn(`${name} is not what it was before: ${error}`);
  }
}
