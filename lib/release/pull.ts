import type { Color } from "../color.ts";
import { shellCommand } from "../docker/cli.ts";
import { tagArgs, tagImage } from "../docker/image.ts";
import { imageOf } from "../docker/names.ts";
import { pull, pullArgs } from "../docker/pull.ts";
import { DeadlineError, PullError } from "../errors.ts";
import type { Context } from "../run/context.ts";

/**
 * Takes the place of `buildContainer`: pulls an image and tags it as the image of one color, in BUILD_SECONDS at most. The
 * record says which image, so that a later run can remove it. Throws PullError, DockerError, InterruptedError.
 */
export const pullContainer = (context: Context, color: Color, reference: string): Promise<void> => {
  const { settings, lock, log } = context;
  const tag = imageOf(settings, color);
  const pullAndTag = async (): Promise<void> => {
    lock.record({ source: reference });
    const { id, source } = await pull(context, reference).catch((error) => {
      if (!(error instanceof DeadlineError)) throw error;
      throw new PullError(`The pull took longer than ${settings.buildSeconds} s and was stopped`, {
        details: error.details,
        next: "Pull it by hand to see why, or raise BUILD_SECONDS, then deploy again; the serving color was not touched.",
      });
    });
    lock.record({ source });
    await tagImage(context, id, tag); // by its id: the pulled tag may have moved meanwhile
    log.info(`pulled ${describeSource(source)}`);
  };
  return context.change(`pull the image of ${color}`, pullAndTag, [
    shellCommand(context, pullArgs(reference)),
    shellCommand(context, tagArgs(reference, tag)),
  ]);
};

/** A source for people: the tag, and the beginning of the digest. */
export const describeSource = (source: string): string =>
  source.replace(/@(sha256:[0-9a-f]{12})[0-9a-f]*$/, " @ $1");
