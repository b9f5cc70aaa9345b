import { execFile } from "node:child_process";
import { mkdir, readFile, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { type BuildOptions, build, type Plugin } from "esbuild";
import { tempFolder } from "../bench/testbed/temp.ts";
import { V8_OPTIONS } from "../bench/testbed/v8-options.ts";
import type { TestFile } from "./choose.ts";

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

/** Code that loads a library and writes V8's code cache of it. */
const cacheCode = (file: string): string => `
const { readFileSync, writeFileSync } = require("node:fs");
const { Script } = require("node:vm");
const filename = ${JSON.stringify(file)};
const script = new Script(readFileSync(filename, "utf8"), { filename });
const module = { exports: {} };
script.runInThisContext()(module, module.exports, require);
writeFileSync(filename + ".cache", script.createCachedData());
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

/** Parts of undici and zod that no script uses. Loading them would take 0.1 CPU-s at each start. */
const UNUSED = /\/undici\/lib\/(cache|mock|web)\/|\/client-h2\.js$|\/locales\/\w+\.cjs$/;

/** Replaces these parts: any name that they export is an empty class. zod's English messages remain. */
const withoutUnused: Plugin = {
  name: "without unused parts",
  setup: ({ onLoad }) => {
    onLoad({ filter: UNUSED }, ({ path }) =>
      /\/(en|index)\.cjs$/.test(path)
        ? undefined
        : { contents: "module.exports = new Proxy({}, { get: () => class {} });" },
    );
  },
};

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
    plugins: [withoutUnused],
    banner: { js: "(function (module, exports, require) {" },
    footer: { js: "})" },
    logLevel: "error",
  });
  // With the options of the scripts: otherwise V8 would reject the cache silently.
  await promisify(execFile)(process.execPath, [...V8_OPTIONS, "-e", cacheCode(filename)]);
}

const MODULES: BuildOptions = {
  bundle: true,
  splitting: true, // keeps what is loaded with import(), or by several bundles, in files of its own
  platform: "node",
  format: "esm",
  outExtension: { ".js": ".mjs" },
  banner: {
    js: 'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);',
  },
  logLevel: "error",
};

/** Creates a folder for bundles of a checkout, which find its packages. `name` and `run` as for `tempFolder`. */
export async function bundleFolder(checkout: string, name: string, run?: string): Promise<string> {
  const top = await tempFolder(name, run);
  await symlink(join(checkout, "node_modules"), join(top, "node_modules"));
  return top;
}

/** Bundles files. Returns the folder with the bundles, in `top`, a new folder from `bundleFolder`. */
export async function bundle(entryPoints: string[], top: string): Promise<string> {
  const outdir = join(top, "bundles"); // settings.ts takes the parent of this folder for the checkout
  await mkdir(outdir);
  await Promise.all(Object.keys(LIBRARIES).map((library) => makeLibrary(outdir, library)));
  await build({ ...MODULES, entryPoints, outdir, plugins: [librariesIn(outdir)] });
  return outdir;
}

/** As esbuild bundles it, import() of CommonJS has only the default export. */
const namesOfUndici: Plugin = {
  name: "names of undici",
  setup: ({ onLoad, onResolve }) => {
    onResolve({ filter: /^undici$/ }, ({ kind, path }) =>
      kind === "dynamic-import" ? { path, namespace: "library" } : undefined,
    );
    onLoad({ filter: /./, namespace: "library" }, ({ path }) => ({
      contents: `export { ${LIBRARIES[path]?.join(", ")} } from ${JSON.stringify(path)};`,
      resolveDir: import.meta.dirname,
    }));
  },
};

/** Keeps the places of the sources in bundles that run from elsewhere. */
const placesOfSources: Plugin = {
  name: "places of the sources",
  setup: ({ onLoad }) =>
    onLoad({ filter: /\.m?ts$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      if (!text.includes("import.meta")) return undefined;
      const places = `const [SOURCE_URL, SOURCE_FOLDER] = ${JSON.stringify([pathToFileURL(path).href, dirname(path)])};`;
      return { loader: "ts", contents: `${places} ${text}` };
    }),
};

/**
 * Bundles test files of a checkout into `top`, a folder from `bundleFolder`, because loading their sources takes up to
 * 1.3 CPU-s. Returns them with the paths of their bundles, and the bundle of worker.mts, which shares uvu with them.
 */
export async function bundleTests(
  checkout: string,
  files: TestFile[],
  top: string,
): Promise<{ files: TestFile[]; worker: string }> {
  const outdir = join(top, "tests");
  const worker = join(checkout, "tests/worker.mts");
  await build({
    ...MODULES,
    entryPoints: [worker, ...files.map(({ path }) => path)],
    outdir,
    outbase: checkout,
    external: ["esbuild"], // it looks for its program beside itself
    sourcemap: true, // a failed test names the lines of the sources
    plugins: [namesOfUndici, placesOfSources],
    define: { "import.meta.url": "SOURCE_URL", "import.meta.dirname": "SOURCE_FOLDER" },
  });
  const bundleOf = (path: string): string => join(outdir, relative(checkout, path).replace(/m?ts$/, "mjs"));
  return { files: files.map((file) => ({ ...file, path: bundleOf(file.path) })), worker: bundleOf(worker) };
}
