import { join } from "node:path";
import { type Api, type Apis, FIRST_API } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import { serviceOf } from "../docker/names.ts";
import type { Settings } from "../settings.ts";
import type { Answer } from "../util/http-probe.ts";
import { connectionLines } from "./connections.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The APIs' ports as nginx reports them: blue's, then green's, then the word `swarm` if the engine is a swarm. */
const portsOf = (apis: Apis, engine: Settings["engine"]): string =>
  [...COLORS.map((color) => apis[color].port), ...(engine === "swarm" ? [engine] : [])].join(" ");

const upstream = (name: string, servers: readonly string[], api: Api, ...more: string[]): string[] => [
  `upstream ${name} {`,
  `    zone ${name} 64k;`,
  ...servers.map((server) => `    server ${server};`),
  ...more.map((line) => `    ${line}`),
  ...connectionLines(api).map((line) => `    ${line}`),
  "}",
];

/** The size of the table of sessions of a color, enough for 30,000, and how long nginx remembers an unused one. */
const [TABLE_SIZE, REMEMBERED] = ["4m", "24h"];

/** The ports of nginx's own backup servers. Each one decides about the requests that no replica of its color accepts. */
const FALLBACK_PORTS: Readonly<Record<Color, number>> = { blue: 8406, green: 8407 };

/**
 * A session belongs to one replica. nginx learns which one from the response that creates the session. Two upstreams cannot share a table
 * of sessions, so each color has one upstream for all its requests. A backup server decides what happens when no replica accepts a
 * connection: it depends on whether the color is active, kept or a canary.
 */
const replicasOf = (color: Color, api: Api): string[] => [
  "",
  ...upstream(
    `loop_api_${color}`,
    // Requests must not keep waiting 5 s for a node that is gone. But one failed request must not take a replica out, because its sessions would end.
    [
      `${serviceOf(color)}:${api.port} resolve max_fails=3 fail_timeout=3s`,
      `127.0.0.1:${FALLBACK_PORTS[color]} backup`,
    ],
    api,
    `sticky learn create=$upstream_http_mcp_session_id lookup=$api_session zone=loop_${color}_sessions:${TABLE_SIZE} timeout=${REMEMBERED} header;`,
  ),
  `# When no replica of ${color} accepts connections: the sessions of a previous color are gone, and 404 tells a client to start a`,
  "# new one. The active color takes over the other requests of a canary.",
  "server {",
  `    listen 127.0.0.1:${FALLBACK_PORTS[color]};`,
  "    access_log off;",
  "    location / {",
  `        if ($active_color = ${color}) {`,
  "            return 502;",
  "        }",
  "        if ($http_x_loop_run) {",
  "            return 502;",
  "        }",
  "        if ($api_session) {",
  "            return 404;",
  "        }",
  "        proxy_set_header Host $http_host;",
  "        proxy_set_header Upgrade $api_upgrade;",
  "        proxy_set_header Connection $api_connection;",
  "        proxy_pass http://loop_api_$active_color;",
  "    }",
  "}",
];

/** A color has one upstream for every purpose. A node may vanish without closing its connections. */
const IN_SWARM = [
  "",
  'map $host $kept_suffix { default ""; }',
  'map $host $canary_suffix { default ""; }',
  "proxy_socket_keepalive on;",
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
export function renderUpstreams(apis: Apis, engine: Settings["engine"] = "compose"): string {
  const inSwarm = engine === "swarm";
  return [
    "# Written by each run from the colors' containers (API_PORT, API_IDLE_SECONDS); manual changes are overwritten.",
    "# Both colors are always loaded, so that after a switch the address of the new one is already known.",
    "# If only the active color were loaded, new workers would return 502 until their first DNS lookup completes.",
    "# Connections are reused: with a new one for each request, the local ports run out at 470 requests a second.",
    "# nginx closes idle connections before the API does: a POST sent just as the API closes would be lost.",
    ...COLORS.flatMap((color) => (inSwarm ? replicasOf : upstreamsOf)(color, apis[color])),
    ...(inSwarm ? IN_SWARM : []),
    "",
    "# Tells runs, and nobody else, which ports are loaded.",
    `map $is_run $loop_ports { default ""; 1 "${portsOf(apis, engine)}"; }`,
    "",
  ].join("\n");
}

/** `nginx/api-upstreams.conf` for these colors. */
export const upstreamsFile = (settings: Settings, apis: Apis): GeneratedFile => ({
  file: join(settings.nginxFolder, "api-upstreams.conf"),
  content: renderUpstreams(apis, settings.engine),
  mode: 0o644,
});

const isFirst = ({ port, healthPath }: Api): boolean =>
  port === FIRST_API.port && healthPath === FIRST_API.healthPath;

/**
 * Does nginx reach these APIs? The answer says what it has loaded. An nginx that loaded its configuration from an older version
 * reports no ports: it knows only the first port and health path. Auth and idle time do not count: a color gets no requests before
 * its canary or switch, which loads the files anyway.
 */
export const knowsApis = ({ ports }: Answer, apis: Apis, engine: Settings["engine"] = "compose"): boolean =>
  ports === undefined
    ? engine === "compose" && COLORS.every((color) => isFirst(apis[color]))
    : ports === portsOf(apis, engine);
