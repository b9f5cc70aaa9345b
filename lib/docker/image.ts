import type { Color } from "../color.ts";
import type { Context } from "../run/context.ts";
import { type Infer, z } from "../util/zod.ts";
import {
  act,
  CHECK_DOCKER,
  compose,
  docker,
  dockerFailed,
  expectSuccess,
  lastLines,
  shellCommand,
} from "./cli.ts";
import { imageOf, oursOnly, serviceOf } from "./names.ts";

const REVISION = "org.opencontainers.image.revision";

const InspectedImages = z.array(
  z.object({
    Id: z.string(),
    Created: z.string(),
    Size: z.number(),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullable() }),
  }),
);

/** An image. */
export interface Image {
  id: string;
  /** When it was built: ISO 8601. */
  built: string;
  bytes: number;
  /** The commit of its source, if that was a git checkout. */
  revision: string | undefined;
  /** The Compose project that built it. */
  project: string | undefined;
  /** The Compose service that it was built for; see `serviceOf`. */
  service: string | undefined;
}

/** Images by name or id, with one command, in this order; undefined where there is none. Throws DockerError. */
async function inspectImages(
  context: Context,
  names: readonly string[],
): Promise<readonly (Image | undefined)[]> {
  const output = await docker(context, ["image", "inspect", ...names]);
  const missing = [...output.stderr.matchAll(/no such image: (\S+?):?(?=\s|$)/gi)].map(([, name]) => name);
  const there = names.filter((name) => !missing.includes(name));
  if (output.exitCode !== 0 && missing.length === 0)
    throw dockerFailed(output, `inspecting the image ${names.join(" and ")}`, CHECK_DOCKER);
  const found = InspectedImages.parse(JSON.parse(output.stdout)).map(imageFrom);
  if (found.length !== there.length)
    throw dockerFailed(output, `inspecting the image ${names.join(" and ")}`, CHECK_DOCKER);
  return names.map((name) => found[there.indexOf(name)]);
}

function imageFrom({ Id, Created, Size, Config }: Infer<typeof InspectedImages>[number]): Image {
  const labels = Config.Labels ?? {};
  return {
    id: Id,
    built: Created,
    bytes: Size,
    revision: labels[REVISION] || undefined,
    project: labels["com.docker.compose.project"],
    service: labels["com.docker.compose.service"],
  };
}

/** An image by name or id; undefined when there is none. Throws DockerError. */
export const inspectImage = async (context: Context, name: string): Promise<Image | undefined> =>
  (await inspectImages(context, [name]))[0];

/** The image that a color's tag names; undefined for none. The tag is on the last build that did not fail. */
export const taggedImage = (context: Context, color: Color): Promise<Image | undefined> =>
  inspectImage(context, imageOf(context.settings, color));

/** The same for both colors, with one command. Throws DockerError. */
export async function taggedImages(context: Context): Promise<Record<Color, Image | undefined>> {
  const { settings } = context;
  const [blue, green] = await inspectImages(context, [imageOf(settings, "blue"), imageOf(settings, "green")]);
  return { blue, green };
}

/**
 * Puts a color's tag back on the image that it named before a failed release, or removes it when there was none or that
 * image is gone. Otherwise a rollback would start the build that just failed. Throws DockerError.
 */
export async function restoreTag(context: Context, color: Color, before: string | undefined): Promise<void> {
  const tag = imageOf(context.settings, color);
  const now = await taggedImage(context, color);
  if (now?.id === before) return;
  const image = before && (await inspectImage(context, before));
  if (before && !image)
    context.log.warn(`the previous image of ${tag} is gone: you cannot roll back to ${color}`);
  const output = await docker(context, image ? ["tag", image.id, tag] : ["rmi", "--force", tag]);
  expectSuccess(
    output,
    `restoring ${tag}`,
    `Do not roll back to ${color} before a release to it has succeeded.`,
  );
}

/** `restoreTag` as a step. Throws DockerError. */
export const restoreImage = (context: Context, color: Color, before: string | undefined): Promise<void> =>
  context.change(`restore the previous image of ${color}`, () => restoreTag(context, color, before));

/** The arguments that build a color's image. */
export const buildArgs = (context: Context, color: Color): string[] =>
  compose(context, "build", serviceOf(color));

/**
 * Builds the image of one color and labels it with its source revision. Stops when the run is interrupted.
 * Returns the last lines of its output. Throws DeadlineError after BUILD_SECONDS.
 */
export async function buildImage(
  context: Context,
  color: Color,
  revision: string | undefined,
): Promise<{ succeeded: boolean; output: string }> {
  const { settings, signal, log } = context;
  const environment = { LOOP_API_REVISION: revision ?? "" };
  const output = await docker(context, buildArgs(context, color), {
    deadline: settings.buildSeconds,
    signal,
    onLine: log.progress,
    environment,
  });
  return { succeeded: output.exitCode === 0, output: lastLines(output.stdall, 40) };
}

/** The arguments that remove the untagged images of this project. */
export const pruneArgs = (context: Context): string[] => [
  "image",
  "prune",
  "--force",
  "--filter",
  oursOnly(context),
];

/** `pruneImages` as a step of an undo. Never throws. */
export const removeFailedImages = (context: Context): Promise<void> =>
  context.change("remove the failed image", () => pruneImages(context), [
    shellCommand(context, pruneArgs(context)),
  ]);

/**
 * Removes the untagged images of this project, those of failed releases included, unless a container uses them: a year of
 * nightly builds would fill a disk. Never throws: what remains is removed next time.
 */
export async function pruneImages(context: Context): Promise<void> {
  try {
    const output = await act(context, pruneArgs(context));
    if (output.exitCode !== 0) throw new Error(lastLines(output.stderr, 5));
  } catch (error) {
    context.log.warn(`old images were not removed: ${error}`);
  }
}
