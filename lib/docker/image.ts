import type { Color } from "../color.ts";
import type { Context } from "../run/context.ts";
import { type Infer, z } from "../util/zod.ts";
import { act, CHECK_DOCKER, compose, docker, dockerFailed, expectSuccess, lastLines } from "./cli.ts";
import { imageOf, oursOnly, serviceOf } from "./names.ts";

const [REVISION, CREATED] = ["org.opencontainers.image.revision", "org.opencontainers.image.created"];

const InspectedImages = z.array(
  z.object({
    Id: z.string(),
    Created: z.string().nullish(),
    Size: z.number(),
    Architecture: z.string(),
    Config: z.looseObject({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(), // a registry may serve anything
    RootFS: z.object({ Layers: z.array(z.string()).nullish() }),
  }),
);

/** An image. */
export interface Image {
  id: string;
  /** When it was built: ISO 8601; undefined if the image does not say. */
  built: string | undefined;
  bytes: number;
  /** Of the machines it is for, as Docker names it: amd64, arm64. */
  architecture: string;
  /** Equal for two images with equal content, also if one was built for blue and the other for green. */
  content: string;
  /** The commit of its source, if that was a git checkout. */
  revision: string | undefined;
  /** The Compose project that built it. */
  project: string | undefined;
  /** The Compose service that it was built for; see `serviceOf`. */
  service: string | undefined;
}

/** A reference without Docker Hub's name, which Docker does not show. */
export const shortName = (reference: string): string =>
  reference.replace(/^(index\.)?docker\.io\/(library\/)?/, "");

/** The same for two names of one image: some engines report the name that they looked up, not the one that they were given. */
const fullName = (name: string): string =>
  /[:@][^/]*$/.test(name) || /^[0-9a-f]{64}$/.test(name) ? shortName(name) : `${shortName(name)}:latest`;

/** Images by name or id, with one command, in this order; undefined where there is none. Throws DockerError. */
export async function inspectImages(
  context: Context,
  names: readonly string[],
): Promise<readonly (Image | undefined)[]> {
  const output = await docker(context, ["image", "inspect", ...names]);
  const missing = [...output.stderr.matchAll(/no such image: (\S+?):?(?=\s|$)/gi)].map(([, name = ""]) =>
    fullName(name),
  );
  const there = names.filter((name) => !missing.includes(fullName(name)));
  if (output.exitCode !== 0 && missing.length === 0)
    throw dockerFailed(output, `inspecting the image ${names.join(" and ")}`, CHECK_DOCKER);
  const found = InspectedImages.parse(JSON.parse(output.stdout)).map(imageFrom);
  if (found.length !== there.length)
    throw dockerFailed(output, `inspecting the image ${names.join(" and ")}`, CHECK_DOCKER);
  return names.map((name) => found[there.indexOf(name)]);
}

/** Labels that say when and for what an image was built, not what it contains. */
const isOfBuild = (label: string): boolean =>
  [REVISION, CREATED].includes(label) || label.startsWith("com.docker.compose.");

/** What decides how the containers of an image behave: its layers, and the configuration that is not about its build. */
function contentOf({ Config, RootFS }: Infer<typeof InspectedImages>[number]): string {
  const { Labels, Image: _, Hostname: __, ...config } = Config ?? {};
  const labels = Object.entries(Labels ?? {}).filter(([label]) => !isOfBuild(label));
  const sorted = (entries: [string, unknown][]) => entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([RootFS.Layers ?? [], sorted(labels), sorted(Object.entries(config))]);
}

function imageFrom(inspected: Infer<typeof InspectedImages>[number]): Image {
  const { Id, Created, Size, Architecture, Config } = inspected;
  const labels = Config?.Labels ?? {};
  return {
    id: Id,
    built: Created ?? undefined,
    bytes: Size,
    architecture: Architecture,
    content: contentOf(inspected),
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

/** The arguments that tag an image. */
export const tagArgs = (image: string, tag: string): string[] => ["tag", image, tag];

/** Gives an image another tag. Throws DockerError. */
export async function tagImage(context: Context, image: string, tag: string): Promise<void> {
  const output = await docker(context, tagArgs(image, tag));
  expectSuccess(output, `tagging ${tag}`, CHECK_DOCKER);
}

/** A name under which the engine has an image. */
export interface Reference {
  id: string;
  repository: string;
  tag: string;
  digest: string;
}

/** All names of all images, of every project. Throws DockerError. */
export async function listReferences(context: Context): Promise<Reference[]> {
  const format = "{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}}";
  const output = await docker(context, ["images", "--no-trunc", "--digests", "--format", format]);
  expectSuccess(output, "listing images", CHECK_DOCKER);
  return [...output.stdout.matchAll(/^(\S+) (\S+) (\S+) (\S+)$/gm)].map(
    ([, id = "", repository = "", tag = "", digest = ""]) => ({ id, repository, tag, digest }),
  );
}

/**
 * Removes a tag, or a digest, and the image with the last of them. An image that a container uses stays. Never throws: what
 * remains is removed next time.
 */
export async function removeReference(context: Context, reference: string): Promise<void> {
  try {
    const output = await act(context, ["rmi", reference]);
    const expected = /no such image|image is being used|is using its referenced image/i;
    if (output.exitCode !== 0 && !expected.test(output.stderr)) throw new Error(lastLines(output.stderr, 5));
  } catch (error) {
    context.log.warn(`${reference} was not removed: ${error}`);
  }
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
  const output = await docker(context, image ? tagArgs(image.id, tag) : ["rmi", "--force", tag]);
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
