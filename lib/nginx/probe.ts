import { type Apis, healthPaths } from "../api.ts";
import { type Color, isColor } from "../color.ts";
import { currentApis, readApis } from "../engine/apis.ts";
import type { Context } from "../run/context.ts";
import type { Settings } from "../settings.ts";
import { type Answer, probeHealth } from "../util/http-probe.ts";
import { keyHeaders } from "./key.ts";
import type { OtherGets } from "./link.ts";

/** Seconds that nginx may take from the signal until it serves with the new upstream. */
export const RELOAD_SECONDS = 10;

/**
 * Asks the health path through nginx, as a client would, and judges the response by the color that answered. When the colors
 * have different paths, asks each one until a color answers on its own path, beginning with that of `expected`. nginx removes the
 * key, which marks the request as a run's in the log. Never throws.
 */
export async function probeNginx(
  settings: Settings,
  expected: Color = "blue",
  apis: Apis = readApis(settings),
): Promise<Answer> {
  const headers = await keyHeaders(settings);
  let answer: Answer = { healthy: false, finding: "not asked" };
  for (const path of healthPaths(apis, expected)) {
    const ofColor = (color: string | undefined) =>
      isColor(color) && apis[color].healthPath === path ? apis[color] : undefined;
    const expectedOf = (color: string | undefined) => ofColor(color)?.expect;
    answer = await probeHealth(`${settings.nginxUrl}${path}`, expectedOf, settings.health.timeout, headers);
    if (ofColor(answer.color)) return answer;
  }
  return answer;
}

/** The serving color, proven by a healthy response through nginx; undefined when there is none. Never throws. */
export async function servingColor(context: Context): Promise<Color | undefined> {
  const { healthy, color } = await probeNginx(context.settings, "blue", await currentApis(context));
  return healthy && isColor(color) ? color : undefined;
}

/**
 * Asks nginx itself, not the API, which color it has loaded. It answers 204 if it knows the key or has no keys at all, and 404
 * if it does not know this one; both carry the color. `headers` replace the probe key. Never throws.
 */
export const probeLoadedColor = async (
  settings: Settings,
  headers?: Record<string, string>,
): Promise<Answer> =>
  probeHealth(
    `${settings.nginxUrl}/_loop/color`,
    () => ({}),
    settings.health.timeout,
    headers ?? (await keyHeaders(settings)),
  );

/** What the other color gets, according to an answer of `probeLoadedColor`. */
export const loadedForOther = ({ kept, canary }: Answer): OtherGets =>
  canary ? "canary" : kept ? "sessions" : "nothing";

/**
 * The newest color that gets requests according to nginx: the canary if there is one, else the active color; undefined when
 * nginx does not answer. Never throws.
 */
export async function newestLoaded(settings: Settings): Promise<string | undefined> {
  const { color, canary } = await probeLoadedColor(settings);
  return canary ?? color;
}

/** The URL of a color's health path through nginx, whichever color is active. */
export const urlThroughNginx = (settings: Settings, color: Color, api = readApis(settings)[color]): string =>
  `${settings.nginxUrl}/_loop/${color}${api.healthPath}`;

/**
 * Asks a color's health path through nginx, whichever color is active. nginx may not have resolved a new container's address yet,
 * and a switch before that would answer 502. Never throws.
 */
export async function probeThroughNginx({ settings }: Context, color: Color): Promise<Answer> {
  const api = readApis(settings)[color];
  const url = urlThroughNginx(settings, color, api);
  return probeHealth(url, () => api.expect, settings.health.timeout, await keyHeaders(settings));
}

/** Does nginx reach a healthy API of this color? Never throws. */
export const nginxReaches = async (context: Context, color: Color): Promise<boolean> =>
  (await probeThroughNginx(context, color)).healthy;

/**
 * The same for a color with several replicas: healthy once nginx got a healthy response from each of these addresses. nginx
 * sends requests to each in turn. Throws InterruptedError.
 */
export async function probeReplicas(
  context: Context,
  color: Color,
  addresses: readonly string[] = [],
): Promise<Answer> {
  const missing = new Set(addresses);
  // Clients take turns too: with six replicas, one that answers is missed in this many once in ten million times.
  for (let left = 15 * addresses.length; ; left--) {
    context.signal.throwIfAborted();
    const answer = await probeThroughNginx(context, color);
    const [, from = ""] = answer.upstream?.match(/([\d.]+):\d+$/) ?? []; // after a retry, the last one answered
    if (answer.healthy && addresses.length > 0 && !addresses.includes(from))
      return {
        ...answer,
        healthy: false,
        finding: `a response from ${from || "an unknown address"}, which is no replica of ${color}`,
      };
    missing.delete(from);
    if (!answer.healthy || missing.size === 0) return answer;
    if (left === 0)
      return {
        ...answer,
        healthy: false,
        finding: `no response from the replica at ${[...missing].join(", ")}`,
      };
  }
}
