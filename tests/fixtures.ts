import { cp, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

/**
 * Makes what all test files of a run use, below `top`. Returns it as environment variables. A test run starts hundreds of
 * releases and rollbacks, and without this most of their CPU time would go to loading code.
 */
export async function makeFixtures(checkout: string, top: string): Promise<Record<string, string>> {
  return {
    LOOP_TEST_SCRIPTS: await bundleScripts(checkout, top),
    LOOP_TEST_API: await makeLightApi(checkout, join(top, "api")),
  };
}

/** Bundles the scripts: the same code, but tsx does not load its files one by one. Returns the folder with the bundles. */
async function bundleScripts(checkout: string, top: string): Promise<string> {
  const scripts = join(checkout, "scripts");
  const names = (await readdir(scripts)).filter((name) => name.endsWith(".mts"));
  return bundle(
    checkout,
    names.map((name) => join(scripts, name)),
    top,
  );
}

/** Bundles files of a checkout. Returns the folder with the bundles, in the new folder `top`. */
export async function bundle(checkout: string, entryPoints: string[], top: string): Promise<string> {
  const outdir = join(top, "bundles"); // settings.ts takes the parent of this folder for the checkout
  await symlink(join(checkout, "node_modules"), join(top, "node_modules"));
  await build({
    entryPoints,
    outdir,
    bundle: true,
    external: ["undici"], // CommonJS that is loaded with import()
    platform: "node",
    format: "esm",
    outExtension: { ".js": ".mjs" },
    banner: {
      js: 'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);',
    },
    logLevel: "error",
  });
  return outdir;
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
