import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * What the name of everything begins with that a test makes outside of the checkout: folders, Compose projects, images.
 * With the id that `run.mts` gives its files, so that it can remove what these leave, and nobody else's.
 */
export const prefixOf = (run = process.env.LOOP_TEST_RUN): string => `loop-test-${run ? `${run}-` : ""}`;

/** A new folder for a test, outside of the checkout. */
export const tempFolder = (name: string, run?: string): Promise<string> =>
  mkdtemp(join(tmpdir(), `${prefixOf(run)}${name}-`));
