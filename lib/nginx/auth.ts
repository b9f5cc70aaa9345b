import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The content of `nginx/auth.conf`: the paths that go to auth; see `isAuthPath` in lib/api.ts. With AUTH=off there are none. */
export const renderAuth = ({ auth }: Pick<Settings, "auth">): string =>
  [
    "# Written by each run from AUTH; manual changes are overwritten.",
    ...(auth === "off"
      ? []
      : [
          "location ~ ^/(authorize|token|register)(/|$) {",
          "    proxy_pass http://loop_auth;",
          "}",
          "location /.well-known/ {",
          "    proxy_pass http://loop_auth;",
          "}",
        ]),
    "",
  ].join("\n");

/** `nginx/auth.conf` for these settings. */
export const authFile = (settings: Settings): GeneratedFile => ({
  file: join(settings.nginxFolder, "auth.conf"),
  content: renderAuth(settings),
  mode: 0o644,
});
