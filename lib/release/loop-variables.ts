import type { Color } from "../color.ts";
import { imageOf } from "../docker/names.ts";
import type { Context } from "../run/context.ts";
import { getHostPort } from "../settings.ts";

/** What the smoke test and hooks learn of the run, as environment variables; those that are not known yet are empty. */
export function loopVariables({ settings, lock }: Context): Record<string, string> {
  const { verb, from, to, serves } = lock.recorded();
  const urlOf = (color: Color): string => `http://127.0.0.1:${getHostPort(settings, color)}`;
  return {
    LOOP_VERB: verb,
    LOOP_COLOR: to ?? "",
    LOOP_URL: to ? urlOf(to) : "",
    LOOP_IMAGE: to ? imageOf(settings, to) : "",
    LOOP_PREVIOUS_URL: from && serves ? urlOf(from) : "",
  };
}
