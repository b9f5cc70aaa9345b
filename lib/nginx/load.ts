import { type Color, isColor } from "../color.ts";
import { currentApis, readApis } from "../engine/apis.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import type { Answer } from "../util/http-probe.ts";
import { pollUntil } from "../util/poll.ts";
import { configurationError, writeConfiguration } from "./configuration.ts";
import { type OtherGets, readCanary, readKept, readLink, repairLink } from "./link.ts";
import { loadedForOther, probeLoadedColor } from "./probe.ts";
import { reloadInto, switchCommands } from "./switch.ts";
import { knowsApis } from "./upstreams.ts";

/** Seconds that nginx may take to answer. A busy one may miss the timeout of a single probe. */
const ANSWER_SECONDS = 5;

const LOAD_PORTS = "load the ports of the APIs into nginx";

/** Asks nginx what it has loaded, with the probe key unless `headers` replaces it. nginx may need a moment to answer. Never throws. */
async function askLoaded(settings: Settings, headers?: Record<string, string>): Promise<Answer | undefined> {
  let answer: Answer | undefined;
  await pollUntil(ANSWER_SECONDS, async () => {
    answer = await probeLoadedColor(settings, headers);
    return answer.color !== undefined;
  });
  return answer;
}

/**
 * What the other color gets after a reload: what it gets now, or nothing, if the link says so. When a previous color has no
 * sessions, only the link is changed, and nginx still has that color loaded as kept.
 */
async function nextForOther(context: Context, loaded: Answer, color: Color): Promise<OtherGets> {
  const isLinked = (await readLink(context)) === color; // fails when the owner put something else in its place
  const linked = (await readKept(context)) ?? (await readCanary(context));
  return isLinked && linked === undefined ? "nothing" : loadedForOther(loaded);
}

/** Reloads nginx with the colors that it has loaded. Throws ConfigurationError, LinkError, and what the file system throws. */
async function reloadAsLoaded(context: Context, name: string, loaded: Answer, color: Color): Promise<void> {
  const otherGets = await nextForOther(context, loaded, color);
  const reload = async (): Promise<void> => {
    // A run killed between swap and reload leaves a link to a color that was never verified.
    await repairLink(context, color, otherGets);
    await reloadInto(context, color, otherGets).catch((error) => {
      throw configurationError(context, error instanceof Error ? error.message : String(error));
    });
  };
  await context.change(name, reload, switchCommands(context, color, otherGets));
}

/**
 * Reloads nginx when it does not know the probe key yet, or has other ports loaded than the colors' containers have. Before a
 * switch the run asks nginx whether it reaches the new color; an nginx without keys would pass this one on to the API. The
 * serving color stays. Throws ConfigurationError, LinkError, and what the file system throws.
 */
export async function loadKey(context: Context): Promise<void> {
  const { settings } = context;
  const keyless = await askLoaded(settings, {});
  if (!keyless || !isColor(keyless.color)) return; // nginx does not answer: no reason to reload it
  const keyed = keyless.status === 404 ? await probeLoadedColor(settings) : keyless;
  if (keyless.status !== 404 || keyed.status === 404)
    return reloadAsLoaded(context, "load the probe key into nginx", keyless, keyless.color);
  if (!knowsApis(keyed, await currentApis(context), settings.engine))
    await reloadAsLoaded(context, LOAD_PORTS, keyless, keyless.color);
}

/**
 * Lets nginx reach a color whose container was just created: writes its port, and reloads nginx if that has another one loaded.
 * The serving color stays. Does nothing in a dry run. Throws ConfigurationError, LinkError, and what the file system throws.
 */
export async function loadPorts(context: Context): Promise<void> {
  const { settings, options } = context;
  if (options.dryRun) return; // no container was created, and what the start of the run would have written is not there
  await writeConfiguration(context, true);
  const loaded = await askLoaded(settings);
  if (!loaded || !isColor(loaded.color) || knowsApis(loaded, readApis(settings), settings.engine)) return;
  await reloadAsLoaded(context, LOAD_PORTS, loaded, loaded.color);
}
