import { existsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { which } from "zx/core";
import type { Needs } from "./places.ts";
import {
  bodySize,
  canaryPercent,
  count,
  expectation,
  healthPath,
  idleSeconds,
  imageReference,
  ipv4,
  memoryLimit,
  networks,
  percent,
  port,
  processLimit,
  registry,
  seconds,
  someSeconds,
  tmpfsSize,
} from "./util/formats.ts";
import { NOTIFY_FORMAT_NAMES } from "./util/notify-formats.ts";
import { z } from "./util/zod.ts";

/** The VAULT_PATH of an API without a vault. */
export const NO_VAULT = "none";
const NAS_VAULT = "/volume1/LOOP_CORE/vault/LOOP";
const NAS_DOCKER = ["/var/packages/ContainerManager/target/usr/bin/docker", "/usr/local/bin/docker"];

/** What is wrong with a folder that does not exist; completes "it …". */
export const MUST_EXIST = "must be an existing folder; is the volume mounted?";

/** Is this an existing folder? False without permission to look: that is as bad as a missing volume. */
export function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** The docker command: on this PATH, or where a NAS has it; undefined when there is none. */
export const findDocker = (searched = process.env.PATH): string | undefined =>
  which.sync("docker", { nothrow: true, path: searched }) ?? NAS_DOCKER.find((file) => existsSync(file));

/**
 * Every setting and its default, under its external name. Add a setting here and in `Settings`. Relative paths start in `root`.
 * `pulls`: the API's image is pulled, so its sources need not exist.
 */
export const rawSettings = (root: string, needs: Needs, pulls = false) => {
  const path = z.string().transform((text) => resolve(root, text));
  const existingFolder = path.refine(isFolder, MUST_EXIST);
  // null for the word none: zod would replace undefined by the default
  const vaultFolder = z
    .string()
    .transform((text): string | null => (text === NO_VAULT ? null : resolve(root, text)));
  const existingVault = vaultFolder.refine((folder) => folder === null || isFolder(folder), MUST_EXIST);
  const [vault, hooks] = needs === "nothing" ? [vaultFolder, path] : [existingVault, existingFolder];
  const source = needs === "vault and sources" ? existingFolder : path;
  return z.object({
    DOCKER_CMD: z.string().default(() => findDocker() ?? "docker"),
    ENGINE: z.enum(["compose", "swarm"], "must be compose or swarm").default("compose"),
    REPLICAS: count.default(2),
    REGISTRY: registry.optional(),
    COMPOSE_FILE: z.string().default("docker-compose.blue-green.yml"),
    COMPOSE_PROJECT_NAME: z
      .string()
      .regex(/^[a-z0-9][a-z0-9_-]*$/, "must be lower-case letters, digits, - and _")
      .default("loop"),
    NGINX_CONTAINER: z
      .string()
      .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/, "must be a container name")
      .optional(),
    NGINX_IMAGE: z.string().default("nginx:1.30"),
    NGINX_BIND: ipv4.optional(),
    NGINX_PORT: port.default(8080),
    BLUE_PORT: port.default(8082),
    GREEN_PORT: port.default(8085),
    AUTH_PORT: port.default(8084),
    VAULT_PATH: vault.default(existsSync(NAS_VAULT) ? NAS_VAULT : join(root, "examples/vault")),
    ACTIVE_COLOR_FILE: path.optional(),
    STATE_DIR: path.optional(),
    OAUTH_DATA_PATH: path.default(join(root, "oauth-data")),
    LOOP_API_IMAGE: imageReference.optional(),
    LOOP_API_CONTEXT: (pulls ? path : source).default(join(root, "examples/loop-api")),
    AUTH: z.enum(["on", "off"], "must be on or off").default("on"),
    LOOP_AUTH_CONTEXT: path.default(join(root, "examples/loop-auth")),
    API_PORT: port.default(8081),
    HEALTH_PATH: healthPath.default("/health"),
    HEALTH_EXPECT: expectation.default('{"status":"healthy","vault_exists":true}'),
    API_IDLE_SECONDS: idleSeconds.default(2),
    HEALTH_RETRIES: count.default(30),
    HEALTH_INTERVAL: someSeconds.default(10),
    HEALTH_TIMEOUT: someSeconds.default(5),
    SMOKE_COMMAND: z.string().regex(/\S/, "must be a command").optional(),
    SMOKE_SECONDS: someSeconds.default(60),
    HOOKS_PATH: hooks.optional(),
    HOOK_SECONDS: someSeconds.default(60),
    BUILD_SECONDS: someSeconds.default(3600),
    KEEP_RELEASES: count.default(5),
    VERIFY_SECONDS: seconds.default(30),
    CANARY_PERCENT: canaryPercent.default(0),
    CANARY_SECONDS: someSeconds.default(60),
    JUDGE_ERRORS: count.default(3),
    JUDGE_PERCENT: percent.default(5),
    JUDGE_RESPONSES: count.default(20),
    DRAIN_SECONDS: seconds.default(30),
    SESSION_SECONDS: seconds.default(900),
    SESSION_IDLE_SECONDS: seconds.default(300),
    STANDBY: z.enum(["stopped", "paused"], "must be stopped or paused").default("stopped"),
    LOG_FILE: path.optional(),
    BODY_MAX: bodySize.default("100m"),
    TRUSTED_PROXIES: networks.optional(),
    API_MEMORY: memoryLimit.default("1g"),
    NGINX_MEMORY: memoryLimit.default("512m"),
    AUTH_MEMORY: memoryLimit.default("256m"),
    API_PIDS: processLimit.default("512"),
    NGINX_PIDS: processLimit.default("256"),
    AUTH_PIDS: processLimit.default("128"),
    API_TMP: tmpfsSize.default("256m"),
    NOTIFY_URL: z.url({ protocol: /^https?$/, error: "must be an http or https address" }).optional(),
    NOTIFY_ON: z.enum(["always", "failure"], "must be always or failure").default("always"),
    NOTIFY_FORMAT: z
      .enum(NOTIFY_FORMAT_NAMES, `must be one of ${NOTIFY_FORMAT_NAMES.join(", ")}`)
      .default("json"),
  });
};

/** Settings that may contain a secret: their values are never printed. */
export const SECRET = ["NOTIFY_URL"];

/** Settings for which an empty value means something. */
export const MAY_BE_EMPTY = ["HEALTH_EXPECT", "LOOP_API_IMAGE"];
