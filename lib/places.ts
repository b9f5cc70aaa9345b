import { exposureOf, type Mounts } from "./exposure.ts";
import { isInside } from "./util/confined.ts";

/**
 * What must exist. Only a release needs sources and compose files: a rollback starts an existing container, and the status
 * must report what is missing instead of failing.
 */
export type Needs = "vault and sources" | "vault" | "nothing";

/** A path that decides what root runs or writes. */
export interface Place {
  name: string;
  path: string;
  remedy: string;
}

/** A place that a setting of this name decides. */
export const placeOf = (name: string, path: string): Place => ({
  name,
  path,
  remedy: `set ${name} to a path outside`,
});

/** The problems of places that containers can write to: a symbolic link there makes root write to any file, or run anything. */
export const exposedPlaces = (places: readonly Place[], mounts: Mounts): string[] =>
  places.flatMap(({ name, path, remedy }) => {
    const why = exposureOf(path, mounts);
    return why ? [`${name} is ${JSON.stringify(path)}: ${why}; ${remedy}`] : [];
  });

/** The compose files as places. */
export const composePlaces = (files: readonly string[]): Place[] =>
  files.map((file) => placeOf("COMPOSE_FILE", file));

/** What a run trusts: absolute paths. */
export interface Trusted extends Mounts {
  checkout: string;
  stateDir: string;
  nginxFolder: string;
  hooksPath: string | undefined;
  composeFiles: readonly string[];
  apiContext: string;
  /** undefined without auth. */
  authContext: string | undefined;
}

/** The places that no container may be able to write to. A rollback needs compose files later, if at all, and no sources. */
export function placesOf(needs: Needs, trusted: Trusted): Place[] {
  const state = placeOf("STATE_DIR", trusted.stateDir);
  if (needs === "nothing") return [state];
  const checkout = { name: "The checkout", path: trusted.checkout, remedy: "move it outside" };
  const nginx = {
    name: "The folder of nginx's configuration",
    path: trusted.nginxFolder,
    remedy: "it is next to the first COMPOSE_FILE: move both to a folder outside",
  };
  const hooks = trusted.hooksPath === undefined ? [] : [placeOf("HOOKS_PATH", trusted.hooksPath)];
  const sources = [
    ...composePlaces(trusted.composeFiles),
    placeOf("LOOP_API_CONTEXT", trusted.apiContext),
    ...(trusted.authContext === undefined ? [] : [placeOf("LOOP_AUTH_CONTEXT", trusted.authContext)]),
  ];
  const all = [state, nginx, ...hooks, ...(needs === "vault and sources" ? sources : [])];
  // If the whole checkout is exposed, one line says it all.
  if (exposureOf(checkout.path, trusted))
    return [checkout, ...all.filter(({ path }) => !isInside(path, checkout.path))];
  return all;
}
