import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { type Api, ApiSchema, type Apis } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import type { Container } from "../docker/container.ts";
import { StateFileError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { replaceFile } from "../util/atomic.ts";
import { type Infer, z } from "../util/zod.ts";
import { inspectColor, inspectColors } from "./colors.ts";

/** How many images' APIs are remembered, besides those of the releases that are kept: failed releases have images too. */
const MORE_IMAGES = 10;

/**
 * The APIs of the colors' containers, according to their labels, and those of the images that they ran, by image id: without
 * its container, a color is recreated from its image, which may be older than the settings.
 */
const Recorded = z.object({
  colors: z.object({ blue: ApiSchema.optional(), green: ApiSchema.optional() }),
  images: z.array(z.object({ id: z.string(), api: ApiSchema })),
  /** The image of each color's container. The next run adds it to `images`, unless its release failed. */
  created: z.object({ blue: z.string().optional(), green: z.string().optional() }),
});
type Recorded = Infer<typeof Recorded>;

type Place = Pick<Settings, "stateDir" | "api">;

const fileOf = ({ stateDir }: Place): string => join(stateDir, "apis.json");

/** Nothing when the file is missing or damaged: each run writes it again. */
function readRecorded(settings: Place): Recorded {
  try {
    return Recorded.parse(JSON.parse(readFileSync(fileOf(settings), "utf8")));
  } catch {
    return { colors: {}, images: [], created: {} };
  }
}

/** How each color's API is reached, and when it is healthy; for a color without a record, as the settings say. Never throws. */
export function readApis(settings: Place): Apis {
  const { blue = settings.api, green = settings.api } = readRecorded(settings).colors;
  return { blue, green };
}

/** The APIs of the colors according to the labels of their containers; for a color without a container, as it is recorded. Never throws. */
export function apisOf(settings: Place, containers: Readonly<Record<Color, Container>>): Apis {
  const recorded = readApis(settings);
  const of = (color: Color): Api =>
    containers[color].status === "absent" ? recorded[color] : containers[color].api;
  return { blue: of("blue"), green: of("green") };
}

/**
 * The APIs of the colors now. A run has recorded them at its start. A dry run, and any command that
 * changes nothing, asks Docker: right after an upgrade nothing is recorded, and the settings may already be those of the next
 * release. Never throws.
 */
export async function currentApis(context: Context): Promise<Apis> {
  const { settings, options } = context;
  if (!options.dryRun) return readApis(settings);
  const containers = await inspectColors(context).catch(() => undefined);
  return containers ? apisOf(settings, containers) : readApis(settings);
}

/** The API of an image that a color ran before; else, as the settings say. Never throws. */
export const apiOfImage = (settings: Place, image: string): Api =>
  readRecorded(settings).images.find(({ id }) => id === image)?.api ?? settings.api;

async function write({ settings, options, log }: Context, before: Recorded, after: Recorded): Promise<void> {
  const content = `${JSON.stringify(after)}\n`;
  if (options.dryRun || content === `${JSON.stringify(before)}\n`) return;
  try {
    await replaceFile(fileOf(settings), content);
  } catch (error) {
    const what = `Cannot record the APIs of the colors in ${fileOf(settings)}`;
    // The colors are recorded right, so a rollback can go on: only a color without a container needs the images.
    if (isDeepStrictEqual(after.colors, before.colors)) return log.warn(`${what}: ${error}`);
    throw new StateFileError(what, {
      details: String(error),
      next: "Free some space on its disk, or point STATE_DIR elsewhere, and run this again; the serving color was not touched.",
    });
  }
}

/**
 * Makes the record agree with the colors' containers: a run may have been killed between the two. A color without a container
 * keeps its record. Does nothing in a dry run. Throws StateFileError.
 */
export async function recordApis(
  context: Context,
  containers: Readonly<Record<Color, Container>>,
): Promise<void> {
  const before = readRecorded(context.settings);
  const present = COLORS.filter((color) => containers[color].status !== "absent");
  const colors = Object.fromEntries(present.map((color) => [color, containers[color].api]));
  const created = Object.fromEntries(
    present.map((color) => [color, containers[color].discarded ? undefined : containers[color].image]),
  );
  const ran = present
    .filter((color) => !containers[color].discarded)
    .map((color) => ({ id: containers[color].image, api: containers[color].api }));
  const images = [...ran, ...removedSince(before, present), ...before.images];
  const isFirst = ({ id }: { id: string }, i: number): boolean =>
    images.findIndex((one) => one.id === id) === i;
  await write(context, before, {
    colors: { ...before.colors, ...colors },
    images: images.filter(isFirst).slice(0, context.settings.keepReleases + MORE_IMAGES),
    created: { ...before.created, ...created },
  });
}

/** The images, not known yet, of containers that were removed before a run saw them: a rollback recreates them. */
const removedSince = ({ colors, images, created }: Recorded, present: readonly Color[]): Recorded["images"] =>
  COLORS.flatMap((color) => {
    const [id, api] = [created[color], colors[color]];
    const isNew = id !== undefined && api && !present.includes(color) && !images.some((one) => one.id === id);
    return isNew ? [{ id, api }] : [];
  });

/** Records the container of a color that was just created. Does nothing in a dry run. Throws StateFileError. */
export async function recordCreated(
  context: Context,
  color: Color,
  { api, image }: Pick<Container, "api" | "image">,
): Promise<void> {
  const before = readRecorded(context.settings);
  const colors = { ...before.colors, [color]: api };
  await write(context, before, { ...before, colors, created: { ...before.created, [color]: image } });
}

/** Records the API that a color's container was just created with. Throws StateFileError, DockerError. */
export const recordApi = async (context: Context, color: Color, api: Api): Promise<void> =>
  recordCreated(context, color, { api, image: (await inspectColor(context, color)).image });
