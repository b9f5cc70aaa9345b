import { join } from "node:path";
import type { Apis } from "../api.ts";
import { COLORS } from "../color.ts";
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

/** `nginx/auth.conf` for these colors. */
export const authFile = (settings: Settings, apis: Apis): GeneratedFile => ({
  file: join(settings.nginxFolder, "auth.conf"),
  content: renderAuth(apis),
  mode: 0o644,
});
