import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Script } from "node:vm";
import { build, type Plugin } from "esbuild";

/** What the scripts use of their libraries. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  zod: ["z"],
  "zx/core": ["$", "which"],
  undici: ["Agent", "request"],
};

/** A library in a folder of bundles. Its cache is beside it, and named like it. */
const fileOf = (folder: string, library: string): string => join(folder, `${library.replace("/", "-")}.cjs`);

/** The file's content is a function of `module`, `exports` and `require`. With a cache, V8 need not compile it at each start. */
const loadCode = (file: string, library: string): string => `
import { readFileSync } from "node:fs";
import { Script } from "node:vm";
const filename = ${JSON.stringify(file)};
const cachedData = readFileSync(filename + ".cache");
const module = { exports: {} };
new Script(readFileSync(filename, "utf8"), { filename, cachedData }).runInThisContext()(module, module.exports, require);
export const { ${LIBRARIES[library]?.join(", ")} } = module.exports;
`;

/** Makes bundles load the libraries from the files in a folder. */
const librariesIn = (folder: string): Plugin => ({
  name: "libraries from files",
  setup: ({ onLoad, onResolve }) => {
    onResolve({ filter: /^(undici|zx\/core)$/ }, ({ path }) => ({ path, namespace: "library" }));
    onResolve({ filter: /\/zod\.ts$/ }, () => ({ path: "zod", namespace: "library" })); // it uses `require`
    onLoad({ filter: /./, namespace: "library" }, ({ path }) => ({
      contents: loadCode(fileOf(folder, path), path),
    }));
  },
});

/** Writes a library into one file, and what V8 compiles of it while it loads into a second one. */
async function makeLibrary(folder: string, library: string): Promise<void> {
  const filename = fileOf(folder, library);
  await build({
    stdin: {
      contents: `module.exports = require(${JSON.stringify(library)});`,
      resolveDir: import.meta.dirname,
    },
    outfile: filename,
    bundle: true,
    platform: "node",
    format: "cjs",
    banner: { js: "(function (module, exports, require) {" },
    footer: { js: "})" },
    logLevel: "error",
  });
  const script = new Script(await readFile(filename, "utf8"), { filename });
  const loaded = { exports: {} };
  script.runInThisContext()(loaded, loaded.exports, createRequire(filename));
  await writeFile(`${filename}.cache`, script.createCachedData());
}

/**
 * Makes what all test files of a run use, below `top`. Returns it as environment variables. A test run starts hundreds of
 * releases and rollbacks, and without this most of their CPU time would go to loading code.
 */
export async function makeFixtures(checkout: string, top: string): Promise<Record<string, string>> {
  return {
    LOOP_TEST_SCRIPTS: await bundleScripts(checkout, top),
    LOOP_TEST_API: await makeLightApi(checkout, join(top, "api")),
    LOOP_TEST_AUTH: await makeLightAuth(checkout, join(top, "auth")),
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
  await mkdir(outdir);
  await Promise.all(Object.keys(LIBRARIES).map((library) => makeLibrary(outdir, library)));
  await build({
    entryPoints,
    outdir,
    bundle: true,
    splitting: true, // keeps what is loaded with import() in files of its own
    plugins: [librariesIn(outdir)],
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
