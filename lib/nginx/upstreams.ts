import { join } from "node:path";
import { type Api, type Apis, FIRST_API } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import { serviceOf } from "../docker/names.ts";
import type { Settings } from "../settings.ts";
import type { Answer } from "../util/http-probe.ts";
import { connectionLines } from "./connections.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The APIs' ports as nginx reports them: that of blue, then that of green. */
const portsOf = (apis: Apis): string => COLORS.map((color) => apis[color].port).join(" ");

const upstream = (name: string, servers: readonly string[], api: Api): string[] => [
  `upstream ${name} {`,
  `    zone ${name} 64k;`,
  ...servers.map((server) => `    server ${server};`),
  ...connectionLines(api).map((line) => `    ${line}`),
  "}",
];

function upstreamsOf(color: Color, api: Api): string[] {
  const server = `${serviceOf(color)}:${api.port} resolve`;
  return [
    "",
    ...upstream(`loop_api_${color}`, [server], api),
    "# For the requests of its sessions, after a switch to the other color. When it does not accept connections, its sessions",
    "# are gone: 404 tells a client to start a new one; 502 does not.",
    ...upstream(`loop_api_${color}_kept`, [`${server} max_fails=0`, "127.0.0.1:8404 backup"], api),
    "# As a canary. If it does not accept connections, the active color takes over its requests within a second (the resolver's",
    "# valid=1s), because the run that would end the canary may have been killed.",
    ...upstream(`loop_api_${color}_canary`, [`${server} max_fails=0`, "127.0.0.1:8405 backup"], api),
  ];
}

/** The content of `nginx/api-upstreams.conf`: both colors, each with the port and the idle time that its container was created for. */
export function renderUpstreams(apis: Apis): string {
  return [
    "# Written by each run from the colors' containers (API_PORT, API_IDLE_SECONDS); manual changes are overwritten.",
    "# Both colors are always loaded, so that after a switch the address of the new one is already known.",
    "# If only the active color were loaded, new workers would return 502 until their first DNS lookup completes.",
    "# Connections are reused: with a new one for each request, the local ports run out at 470 requests a second.",
    "# nginx closes idle connections before the API does: a POST sent just as the API closes would be lost.",
    ...COLORS.flatMap((color) => upstreamsOf(color, apis[color])),
    "",
    "# Tells runs, and nobody else, which ports are loaded.",
    `map $is_run $loop_ports { default ""; 1 "${portsOf(apis)}"; }`,
    "",
  ].join("\n");
}

/** `nginx/api-upstreams.conf` for these colors. */
export const upstreamsFile = (settings: Settings, apis: Apis): GeneratedFile => ({
  file: join(settings.nginxFolder, "api-upstreams.conf"),
  content: renderUpstreams(apis),
  mode: 0o644,
});

const isFirst = ({ port, healthPath }: Api): boolean =>
  port === FIRST_API.port && healthPath === FIRST_API.healthPath;

/**
 * Does nginx reach these APIs? The answer says what it has loaded. An nginx that loaded its configuration from an older version
 * reports no ports: it knows only the first port and health path. Auth and idle time do not count: a color gets no requests before
 * its canary or switch, which loads the files anyway.
 */
export const knowsApis = ({ ports }: Answer, apis: Apis): boolean =>
  ports === undefined ? COLORS.every((color) => isFirst(apis[color])) : ports === portsOf(apis);
