import { COLORS, type Color } from "./color.ts";
import { type Expectation, parseExpectation } from "./util/expectation.ts";
import { expectation, healthPath, port } from "./util/formats.ts";
import { z } from "./util/zod.ts";

/** How an API is reached and when it is healthy. Each color has its own, because settings change between releases. */
export interface Api {
  /** The port that it listens on in its container. */
  port: number;
  healthPath: string;
  expect: Expectation;
}

/** The API of each color. */
export type Apis = Readonly<Record<Color, Api>>;

/** The API of a container that a version without labels created: it had to be like this. */
export const FIRST_API: Api = {
  port: 8081,
  healthPath: "/health",
  expect: { status: "healthy", vault_exists: true },
};

/** The labels of the API's containers; the compose file sets them from the settings. */
const LABELS = { port: "loop.api-port", healthPath: "loop.health-path", expect: "loop.health-expect" };

/** The API that a container's labels describe. A label that is missing or invalid counts as that of the first version. */
export function apiOf(labels: Readonly<Record<string, string>>): Api {
  const expect = labels[LABELS.expect] || undefined; // Compose writes an empty label when the variable is not set
  const isValid = expectation.safeParse(expect).success;
  return {
    port: port.safeParse(labels[LABELS.port]).data ?? FIRST_API.port,
    healthPath: healthPath.safeParse(labels[LABELS.healthPath]).data ?? FIRST_API.healthPath,
    expect: expect !== undefined && isValid ? parseExpectation(expect) : FIRST_API.expect,
  };
}

/** The settings that give a new container these labels. */
export const apiSettings = ({ port, healthPath, expect }: Api): Record<string, string> => ({
  API_PORT: String(port),
  HEALTH_PATH: healthPath,
  HEALTH_EXPECT: JSON.stringify(expect),
});

/** An `Api` in a file. */
export const ApiSchema = z.object({
  port: z.number().int().min(1).max(65535),
  healthPath,
  expect: z.record(z.string(), z.unknown()),
});

/** The distinct health paths of the colors, usually one; that of `first` comes first. */
export const healthPaths = (apis: Apis, first: Color): string[] => [
  ...new Set([first, ...COLORS].map((color) => apis[color].healthPath)),
];

/** Does nginx send this path to auth? Only with AUTH=on. */
export const isAuthPath = (path: string): boolean =>
  /^\/((authorize|token|register)(\/|$)|\.well-known\/)/.test(path);
