import type { Color } from "../color.ts";
import { shellCommand } from "../docker/cli.ts";
import { buildArgs, buildImage } from "../docker/image.ts";
import { engineOf } from "../engine/engine.ts";
import { BuildError, DeadlineError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { freeSpace } from "./disk.ts";
import { sourceRevision } from "./revision.ts";

/**
 * Spec `build_container`: builds the image of one color and labels it with its source revision, in BUILD_SECONDS at most.
 * Throws BuildError with the output and the free disk space, InterruptedError.
 */
export const buildContainer = (context: Context, color: Color): Promise<void> =>
  context.change(`build ${color}`, () => build(context, color), [
    shellCommand(context, buildArgs(context, color)),
  ]);

async function build(context: Context, color: Color): Promise<void> {
  await engineOf(context).checkBuild(context);
  const revision = await sourceRevision(context.settings.apiContext);
  const { succeeded, output } = await buildImage(context, color, revision).catch(async (error) => {
    if (!(error instanceof DeadlineError)) throw error;
    throw new BuildError(`The build took longer than ${context.settings.buildSeconds} s and was stopped`, {
      details: `${error.details}\n${(await freeSpace(context)).words}`,
      next: "See in the output what it waits for, or raise BUILD_SECONDS, then deploy again; the serving color was not touched.",
    });
  });
  context.signal.throwIfAborted();
  if (succeeded) return;
  throw new BuildError("Build failed, check disk space on NAS", {
    details: `${output}\n${(await freeSpace(context)).words}`,
    next: "Fix what the output shows and deploy again; the serving color was not touched.",
  });
}
