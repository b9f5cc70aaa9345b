import { COLORS, type Color } from "./color.ts";
import { type Expectation, parseExpectation } from "./util/expectation.ts";
import { expectation, healthPath, idleSeconds, port } from "./util/formats.ts";
import { z } from "./util/zod.ts";

/** What nginx and the health checks need to know of an API. Each color has its own, because settings change between releases. */
export interface Api {
  /** The port that it listens on in its container. */
  port: number;
  healthPath: string;
  expect: Expectation;
  /** on: nginx sends the paths of auth to auth. off: to the API. */
  auth: "on" | "off";
  /** Seconds that it keeps an idle connection open; 0: it closes each one after its response. */
  idleSeconds: number;
}

/** The API of each color. */
export type Apis = Readonly<Record<Color, Api>>;

/** The API of a container that a version without labels created: it had to be like this. */
export const FIRST_API: Api = {
  port: 8081,
  healthPath: "/health",
  expect: { status: "healthy", vault_exists: true },
  auth: "on",
  idleSeconds: 2,
};

const auth = z.enum(["on", "off"]);

/** The labels of the API's containers; the compose file sets them from the settings. */
const LABELS = {
  port: "loop.api-port",
  healthPath: "loop.health-path",
  expect: "loop.health-expect",
  auth: "loop.auth",
  idle: "loop.api-idle",
};

/** Does nginx send this path to auth? Only for a color with AUTH=on; see the map in nginx/nginx-blue-green.conf. */
export const isAuthPath = (path: string): boolean =>
  /^\/((authorize|token|register)(\/|$)|\.well-known\/)/.test(path);

/**
 * The API that a container's labels describe. A label that is missing or invalid counts as that of the first version; for the
 * idle time, as `unlabeledIdle`: versions without this label had one setting for both colors.
 */
export function apiOf(labels: Readonly<Record<string, string>>, unlabeledIdle = FIRST_API.idleSeconds): Api {
  const expect = labels[LABELS.expect] || undefined; // Compose writes an empty label when the variable is not set
  const isValid = expectation.safeParse(expect).success;
  return {
    port: port.safeParse(labels[LABELS.port]).data ?? FIRST_API.port,
    healthPath: healthPath.safeParse(labels[LABELS.healthPath]).data ?? FIRST_API.healthPath,
    expect: expect !== undefined && isValid ? parseExpectation(expect) : FIRST_API.expect,
    auth: auth.safeParse(labels[LABELS.auth]).data ?? FIRST_API.auth,
    idleSeconds: idleSeconds.safeParse(labels[LABELS.idle]).data ?? unlabeledIdle,
  };
}

/** The settings that give a new container these labels. */
export const apiSettings = ({
  port,
  healthPath,
  expect,
  auth,
  idleSeconds,
}: Api): Record<string, string> => ({
  API_PORT: String(port),
  HEALTH_PATH: healthPath,
  HEALTH_EXPECT: JSON.stringify(expect),
  AUTH: auth,
  API_IDLE_SECONDS: String(idleSeconds),
});

/** An `Api` in apis.json. */
export const ApiSchema = z.object({
  port: z.number().int().min(1).max(65535),
  healthPath,
  expect: z.record(z.string(), z.unknown()),
  auth,
  idleSeconds: z.number().min(0),
});

/** Does a color have auth? Then auth is needed, whatever the settings say for the next release. */
export const hasAuth = (apis: Apis): boolean => COLORS.some((color) => apis[color].auth === "on");

/** The distinct health paths of the colors, usually one; that of `first` comes first. */
export const healthPaths = (apis: Apis, first: Color): string[] => [
  ...new Set([first, ...COLORS].map((color) => apis[color].healthPath)),
];
