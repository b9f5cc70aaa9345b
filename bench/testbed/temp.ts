import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * The prefix of the names of everything that a test creates outside the checkout: folders, Compose projects, images. It contains
 * the id of the test run from `run.mts`, which can so remove what its tests leave, and nothing else.
 */
export const prefixOf = (run = process.env.LOOP_TEST_RUN): string => `loop-test-${run ? `${run}-` : ""}`;

/** Creates a folder for a test, outside the checkout. */
export const tempFolder = (name: string, run?: string): Promise<string> =>
  mkdtemp(join(tmpdir(), `${prefixOf(run)}${name}-`));

/** The format in which `docker images --digests` prints references that `docker rmi` takes: a pulled image may have no tag. */
export const IMAGE_REFERENCE = '{{.Repository}}{{if eq .Tag "<none>"}}@{{.Digest}}{{else}}:{{.Tag}}{{end}}';
