import { readdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

/**
 * Bundles the scripts of a checkout for the tests, below `top`. Returns the folder with the bundles. A test run starts hundreds
 * of runs, and tsx would need most of a run's CPU time to load the scripts' files one by one.
 */
export async function bundleScripts(checkout: string, top: string): Promise<string> {
  const scripts = join(checkout, "scripts");
  const names = (await readdir(scripts).catch(() => [])).filter((name) => name.endsWith(".mts"));
  const outdir = join(top, "scripts"); // settings.ts takes the parent of this folder for the checkout
  await symlink(join(checkout, "node_modules"), join(top, "node_modules"));
  if (names.length === 0) return outdir;
  await build({
    entryPoints: names.map((name) => join(scripts, name)),
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
