import type { Color } from "../color.ts";
import type { Settings } from "../settings.ts";
import type { Stack } from "../stack.ts";
import { z } from "../zod.ts";
import { act, compose, docker, expectSuccess, lastLines, oursOnly, serviceOf } from "./engine.ts";

/** The image of a color: each keeps its own build, which is what a rollback goes back to. */
export const imageOf = ({ project }: Settings, color: Color): string => `${project}-api:${color}`;

const REVISION = "org.opencontainers.image.revision";

const InspectedImage = z.tuple([
  z.object({
    Id: z.string(),
    Created: z.string(),
    Size: z.number(),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullable() }),
  }),
]);

/** An image. */
export interface Image {
  id: string;
  /** When it was built: ISO 8601. */
  built: string;
  bytes: number;
  /** The commit of its source, where that was a git checkout. */
  revision: string | undefined;
  /** The Compose project that built it. */
  project: string | undefined;
  /** The service that it was built for: see `serviceOf`. */
  service: string | undefined;
}

/** An image by its name or id; undefined when there is none. Throws DockerError. */
export async function inspectImage(stack: Stack, name: string): Promise<Image | undefined> {
  const output = await docker(stack, ["image", "inspect", name]);
  if (output.exitCode !== 0 && /no such image/i.test(output.stderr)) return undefined;
  expectSuccess(output, `looking at the image ${name}`, "See whether Docker is well: docker ps");
  const [{ Id, Created, Size, Config }] = InspectedImage.parse(JSON.parse(output.stdout));
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

/** The image that a color's tag names, undefined for none. The tag is on the last build that was not found bad. */
export const taggedImage = (stack: Stack, color: Color): Promise<Image | undefined> =>
  inspectImage(stack, imageOf(stack.settings, color));

/**
 * Puts a color's tag back on the image it named before a release that failed, or takes it away when there was none, or
 * when that image is gone: else a rollback would start the build that was just found bad. Throws DockerError.
 */
export async function restoreImage(stack: Stack, color: Color, before: string | undefined): Promise<void> {
  const tag = imageOf(stack.settings, color);
  const now = await taggedImage(stack, color);
  if (now?.id === before) return;
  const there = before && (await inspectImage(stack, before));
  if (before && !there)
    stack.log.warn(`the image that ${tag} was before is gone: there is no way back to it`);
  const output = await docker(stack, there ? ["tag", there.id, tag] : ["rmi", "--force", tag]);
  expectSuccess(
    output,
    `putting ${tag} back`,
    `Do not roll back to ${color} before a release to it has succeeded.`,
  );
}

/** The arguments that build a color's image. */
export const buildArgs = (stack: Stack, color: Color): string[] => compose(stack, "build", serviceOf(color));

/**
 * Builds the image of one color, labelled with its source revision; ends when the run is interrupted.
 * Gives the last lines of its output. Throws DeadlineError after BUILD_SECONDS.
 */
export async function buildImage(
  stack: Stack,
  color: Color,
  revision: string | undefined,
): Promise<{ succeeded: boolean; output: string }> {
  const { settings, signal, log } = stack;
  const environment = { LOOP_API_REVISION: revision ?? "" };
  const output = await docker(stack, buildArgs(stack, color), {
    deadline: settings.buildSeconds,
    signal,
    onLine: log.progress,
    environment,
  });
  return { succeeded: output.exitCode === 0, output: lastLines(output.stdall, 40) };
}

/** The arguments that remove this project's images without a tag. */
export const pruneArgs = (stack: Stack): string[] => [
  "image",
  "prune",
  "--force",
  "--filter",
  oursOnly(stack),
];

/**
 * Removes the images of this project that no tag names any more, those of failed releases included, unless a container
 * uses them: a year of nightly builds fills a disk. What cannot be removed is left for the next time. Never throws.
 */
export async function pruneImages(stack: Stack): Promise<void> {
  try {
    const output = await act(stack, pruneArgs(stack));
    if (output.exitCode !== 0) throw new Error(lastLines(output.stderr, 5));
  } catch (error) {
    stack.log.warn(`old images were not removed: ${error}`);
  }
}
