import { isColor } from "../color.ts";
import type { Context } from "../run/context.ts";
import type { Answer } from "../util/http-probe.ts";
import { pollUntil } from "../util/poll.ts";
import { configurationError } from "./configuration.ts";
import { readLink, repairLink } from "./link.ts";
import { loadedForOther, probeLoadedColor } from "./probe.ts";
import { reloadInto, switchCommands } from "./switch.ts";

/** Seconds that nginx may take to answer. A busy one may miss the timeout of a single probe. */
const ANSWER_SECONDS = 5;

/**
 * Reloads nginx when it does not know the probe key yet. Before a switch the run asks nginx whether it reaches the new
 * color; an nginx without keys would pass this one on to the API. The serving color stays.
 * Throws ConfigurationError, LinkError, and what the file system throws.
 */
export async function loadKey(context: Context): Promise<void> {
  let keyless: Answer | undefined;
  await pollUntil(ANSWER_SECONDS, async () => {
    keyless = await probeLoadedColor(context.settings, {});
    return keyless.color !== undefined;
  });
  if (!keyless || !isColor(keyless.color)) return; // nginx does not answer: no reason to reload it
  const { status, color: loaded } = keyless;
  const otherGets = loadedForOther(keyless);
  const knowsThis = status === 404 && (await probeLoadedColor(context.settings)).status !== 404;
  if (knowsThis) return;
  await readLink(context); // fails when the owner put something else in its place
  const reload = async (): Promise<void> => {
    // A run killed between swap and reload leaves a link to a color that was never verified.
    await repairLink(context, loaded, otherGets);
    await reloadInto(context, loaded, otherGets).catch((error) => {
      throw configurationError(context, error instanceof Error ? error.message : String(error));
    });
  };
  await context.change("load the probe key into nginx", reload, switchCommands(context, loaded, otherGets));
}
