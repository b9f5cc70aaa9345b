import { cp, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build, type Plugin } from "esbuild";

/** How the scripts load their two large libraries would keep those out of a bundle. */
const LIBRARIES: Record<string, string> = {
  zod: 'export { z } from "zod";', // lib/util/zod.ts uses `require`
  undici: 'export { Agent, request } from "undici";', // import() of CommonJS would only have the default export
};

const librariesInside: Plugin = {
  name: "libraries inside",
  setup: ({ onLoad, onResolve }) => {
    onResolve({ filter: /^undici$/ }, ({ kind, path }) =>
      kind === "dynamic-import" ? { path, namespace: "library" } : undefined,
    );
    onResolve({ filter: /\/zod\.ts$/ }, () => ({ path: "zod", namespace: "library" }));
    onLoad({ filter: /./, namespace: "library" }, ({ path }) => ({
      contents: LIBRARIES[path] ?? "",
      resolveDir: import.meta.dirname,
    }));
  },
};

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

/** Bundles the scripts with their libraries: the same code, but Node need not load hundreds of files. Returns the folder. */
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
    splitting: true, // keeps what is loaded with import() in files of its own
    plugins: [librariesInside],
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
