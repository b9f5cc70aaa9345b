import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { act, CHECK_DOCKER, docker, expectSuccess, lastLines } from "./cli.ts";
import { repositoryOfStack } from "./names.ts";

/** The tag that keeps the image of a release: `loop-api:release-12`. Pruning never removes a tagged image. */
export const releaseTagOf = (settings: Settings, release: number): string =>
  `${repositoryOfStack(settings)}:release-${release}`;

/** A release whose image is kept. */
export interface KeptRelease {
  release: number;
  /** The id of its image. */
  id: string;
}

/** The releases whose images are kept, oldest first. Throws DockerError. */
export async function keptReleases(context: Context): Promise<KeptRelease[]> {
  const output = await docker(context, [
    ...["image", "ls", "--no-trunc", "--format", "{{.Tag}} {{.ID}}"],
    ...["--filter", `reference=${repositoryOfStack(context.settings)}:release-*`],
  ]);
  expectSuccess(output, "listing the images of releases", CHECK_DOCKER);
  const found = [...output.stdout.matchAll(/^release-([1-9]\d{0,8}) (\S+)$/gm)];
  return found
    .map(([, release, id = ""]) => ({ release: Number(release), id }))
    .sort((a, b) => a.release - b.release);
}

/** The arguments that tag an image. */
export const tagArgs = (image: string, tag: string): string[] => ["tag", image, tag];

/** Gives an image another tag. Throws DockerError. */
export async function tagImage(context: Context, image: string, tag: string): Promise<void> {
  const output = await docker(context, tagArgs(image, tag));
  expectSuccess(output, `tagging ${tag}`, CHECK_DOCKER);
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
