import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { CHECK_DOCKER, docker, expectSuccess } from "./cli.ts";
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
