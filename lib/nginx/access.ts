import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The content of `nginx/access.conf`: nginx cannot read BODY_MAX and TRUSTED_PROXIES from the environment. */
export function renderAccess({
  bodyMax,
  trustedProxies,
}: Pick<Settings, "bodyMax" | "trustedProxies">): string {
  return [
    "# Written by each run from BODY_MAX and TRUSTED_PROXIES; manual changes are overwritten.",
    `client_max_body_size ${bodyMax};`,
    ...trustedProxies.map((proxy) => `set_real_ip_from ${proxy};`),
    "real_ip_header X-Forwarded-For;",
    "real_ip_recursive on;",
    "geo $realip_remote_addr $from_proxy {",
    "    default 0;",
    ...trustedProxies.map((proxy) => `    ${proxy} 1;`),
    "}",
    "",
  ].join("\n");
}

/** `nginx/access.conf` for these settings. */
export const accessFile = (settings: Settings): GeneratedFile => ({
  file: join(settings.nginxFolder, "access.conf"),
  content: renderAccess(settings),
  mode: 0o644,
});
