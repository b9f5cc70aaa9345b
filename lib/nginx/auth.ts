import { join } from "node:path";
import type { Apis } from "../api.ts";
import { COLORS } from "../color.ts";
import { readApis } from "../docker/apis.ts";
import type { Settings } from "../settings.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The content of `nginx/auth.conf`: which colors have auth. nginx/nginx-blue-green.conf has the paths. */
export const renderAuth = (apis: Apis): string =>
  [
    "# Written by each run from the colors' containers (AUTH); manual changes are overwritten.",
    "map $chosen_color $has_auth {",
    "    default 0;",
    ...COLORS.filter((color) => apis[color].auth === "on").map((color) => `    ${color} 1;`),
    "}",
    "",
  ].join("\n");

/** `nginx/auth.conf` for the colors as they are recorded. */
export const authFile = (settings: Settings): GeneratedFile => ({
  file: join(settings.nginxFolder, "auth.conf"),
  content: renderAuth(readApis(settings)),
  mode: 0o644,
});
