import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bundle } from "./bundles.ts";

/**
 * Makes what the test files of a run use, in `top`, a folder from `bundleFolder`. Returns it as environment variables. A test
 * run starts hundreds of releases and rollbacks, and without this most of their CPU time would go to loading code.
 */
export async function makeFixtures(checkout: string, top: string): Promise<Record<string, string>> {
  return {
    LOOP_TEST_SCRIPTS: await bundleScripts(checkout, top),
    LOOP_TEST_API: await makeLightApi(checkout, join(top, "api")),
    LOOP_TEST_AUTH: await makeLightAuth(checkout, join(top, "auth")),
  };
}

/** Bundles the scripts with what they use of their libraries: Node need not load hundreds of files. Returns the folder. */
async function bundleScripts(checkout: string, top: string): Promise<string> {
  const scripts = join(checkout, "scripts");
  const names = (await readdir(scripts)).filter((name) => name.endsWith(".mts"));
  return bundle(
    names.map((name) => join(scripts, name)),
    top,
  );
}

/** Copies the example API, with tests/fastapi in place of FastAPI, which takes 0.6 CPU-s to load. Returns its folder. */
async function makeLightApi(checkout: string, folder: string): Promise<string> {
  await cp(join(checkout, "examples/loop-api"), folder, { recursive: true });
  await cp(join(checkout, "tests/fastapi"), join(folder, "fastapi"), { recursive: true });
  const dockerfile = join(folder, "Dockerfile");
  const text = await readFile(dockerfile, "utf8");
  await writeFile(dockerfile, text.replace("COPY api api\n", "COPY fastapi fastapi\nCOPY api api\n"));
  return folder;
}

/** Copies the example of auth, but the server is Python's own, which starts in a tenth of the CPU time. Returns its folder. */
async function makeLightAuth(checkout: string, folder: string): Promise<string> {
  await cp(join(checkout, "examples/loop-auth"), folder, { recursive: true });
  const dockerfile = join(folder, "Dockerfile");
  const text = await readFile(dockerfile, "utf8");
  // Python ignores SIGTERM as process 1; SIGINT ends it.
  const server = 'STOPSIGNAL SIGINT\nCMD ["python3", "-m", "http.server", "8083"]';
  await writeFile(dockerfile, text.replace(/^CMD .*/m, server));
  return folder;
}
