import { existsSync } from "node:fs";
import { join } from "node:path";
import { docker } from "../docker/cli.ts";
import { type Image, inspectImage, taggedImages } from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import type { Context } from "../run/context.ts";
import { isFolder, type Settings } from "../settings.ts";
import { ok, problem, type Verdict } from "./finding.ts";

/** Where a release gets the API's image from. */
export async function checkSource({ settings }: Context): Promise<Verdict> {
  const { apiContext, composeFiles } = settings;
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

/** The image of the color that was built last; undefined before the first release. Throws DockerError. */
export async function newestImage(context: Context): Promise<string | undefined> {
  const { blue, green } = await taggedImages(context);
  const builtMs = (image: Image | undefined): number => (image ? Date.parse(image.built) : 0);
  if (!blue && !green) return undefined;
  return imageOf(context.settings, builtMs(green) > builtMs(blue) ? "green" : "blue");
}

/** The images that checks may pull. */
const pulled = ({ environment }: Settings): string[] => [environment.NGINX_IMAGE ?? ""];

/** Runs `act`, and removes the images that it has pulled. */
export async function withoutNewImages<T>(context: Context, act: () => Promise<T>): Promise<T> {
  const names = pulled(context.settings);
  const before = await Promise.all(names.map((name) => inspectImage(context, name).catch(() => "unknown")));
  try {
    return await act();
  } finally {
    const added = names.filter((_, i) => before[i] === undefined);
    // Without --force: what another run has started from it meanwhile stays.
    if (added.length > 0) await docker(context, ["rmi", ...added]).catch(() => undefined);
  }
}
