import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { isIP, isIPv4 } from "node:net";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseEnv } from "node:util";
import { which } from "zx/core";
import { makeFolder } from "./atomic.ts";
import type { Color } from "./color.ts";
import { isInside } from "./confined.ts";
import { UsageError } from "./errors.ts";
import type { Stack } from "./stack.ts";
import { z } from "./zod.ts";

/** The checkout: relative paths in settings start here, so that cron's working directory does not matter. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SETTINGS_FILE = ".env.blue-green";
const NAS_VAULT = "/volume1/LOOP_CORE/vault/LOOP";
const NAS_DOCKER = ["/var/packages/ContainerManager/target/usr/bin/docker", "/usr/local/bin/docker"];

type Environment = Readonly<Record<string, string | undefined>>;

const ofDigits = (shape: RegExp, must: string) => z.string().regex(shape, must).transform(Number);
const A_PORT = "must be a port from 1 to 65535";
const port = ofDigits(/^\d+$/, A_PORT).refine((value) => value >= 1 && value <= 65535, A_PORT);
const A_COUNT = "must be a whole number from 1";
const count = ofDigits(/^\d+$/, A_COUNT).refine((value) => value >= 1, A_COUNT);
const A_TIME = "must be a number of seconds up to a day, such as 10 or 0.5";
const seconds = ofDigits(/^\d+(\.\d+)?$/, A_TIME).refine((value) => value <= 86_400, A_TIME);
const someSeconds = seconds.refine((value) => value > 0, "must be more than 0 seconds");

const size = (must: string) => z.string().regex(/^(0|[1-9]\d*[kmg]?)$/i, must);
const UNITS: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };
const bytesIn = (text: string): number =>
  Number.parseInt(text, 10) * (UNITS[text.slice(-1).toLowerCase()] ?? 1);
const A_MEMORY = "must be a size from 6m, such as 512m or 1g; 0 for no limit";
const memory = size(A_MEMORY).refine((text) => text === "0" || bytesIn(text) >= 6 * 2 ** 20, A_MEMORY);
const A_BODY = "must be a size such as 100m; 0 for no limit";
const A_TMP = "must be a size such as 256m";
const pids = z.string().regex(/^\d+$/, "must be a whole number; 0 for no limit");

/** Is it an address, or a network such as 10.0.0.0/8? Strictly: it is written into a file of nginx. */
function isNetwork(text: string): boolean {
  const [address = "", bits, ...more] = text.split("/");
  const version = isIP(address);
  if (version === 0 || address.includes("%") || more.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}
const networks = z
  .string()
  .transform((text) => text.split(/[\s,]+/).filter((part) => part !== ""))
  .refine(
    (parts) => parts.every(isNetwork),
    "must be addresses or networks such as 172.18.0.1 or 10.0.0.0/8",
  );
const AN_IDLE_TIME = "must be 0, or a number of seconds from 0.1 to a day";
const idleSeconds = ofDigits(/^\d+(\.\d+)?$/, AN_IDLE_TIME).refine(
  (value) => value === 0 || (value >= 0.1 && value <= 86_400),
  AN_IDLE_TIME,
);

/** Is there a folder? Also false where nobody may look: a permission lost is as good as a volume lost. */
export function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
const path = z.string().transform((text) => resolve(ROOT, text));
const existingFolder = path.refine(isFolder, "must be a folder that is there; is the volume mounted?");

const findDocker = (): string =>
  which.sync("docker", { nothrow: true }) ?? NAS_DOCKER.find((file) => existsSync(file)) ?? "docker";

/**
 * What must be there: only a release needs sources and compose files. The way back starts what is there already, and what
 * only looks must say what is missing, not fail.
 */
export type Needs = "vault and sources" | "vault" | "nothing";

/** Every setting and its default, as it stands outside. */
export const rawSettings = (needs: Needs) => {
  const vault = needs === "nothing" ? path : existingFolder;
  const source = needs === "vault and sources" ? existingFolder : path;
  return z.object({
    DOCKER_CMD: z.string().default(findDocker),
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
    NGINX_BIND: z
      .string()
      .refine(isIPv4, "must be an IPv4 address of this machine, such as 127.0.0.1")
      .optional(),
    NGINX_PORT: port.default(8080),
    BLUE_PORT: port.default(8082),
    GREEN_PORT: port.default(8085),
    AUTH_PORT: port.default(8084),
    VAULT_PATH: vault.default(existsSync(NAS_VAULT) ? NAS_VAULT : join(ROOT, "examples/vault")),
    ACTIVE_COLOR_FILE: path.optional(),
    STATE_DIR: path.optional(),
    OAUTH_DATA_PATH: path.default(join(ROOT, "oauth-data")),
    LOOP_API_CONTEXT: source.default(join(ROOT, "examples/loop-api")),
    LOOP_AUTH_CONTEXT: source.default(join(ROOT, "examples/loop-auth")),
    API_IDLE_SECONDS: idleSeconds.default(2),
    HEALTH_RETRIES: count.default(30),
    HEALTH_INTERVAL: someSeconds.default(10),
    HEALTH_TIMEOUT: someSeconds.default(5),
    BUILD_SECONDS: someSeconds.default(3600),
    VERIFY_SECONDS: seconds.default(30),
    DRAIN_SECONDS: seconds.default(30),
    STANDBY: z.enum(["stopped", "paused"], "must be stopped or paused").default("stopped"),
    LOG_FILE: path.optional(),
    BODY_MAX: size(A_BODY).default("100m"),
    TRUSTED_PROXIES: networks.optional(),
    API_MEMORY: memory.default("1g"),
    NGINX_MEMORY: memory.default("512m"),
    AUTH_MEMORY: memory.default("256m"),
    API_PIDS: pids.default("512"),
    NGINX_PIDS: pids.default("256"),
    AUTH_PIDS: pids.default("128"),
    API_TMP: size(A_TMP)
      .refine((text) => text !== "0", A_TMP)
      .default("256m"),
    NOTIFY_URL: z.url({ protocol: /^https?$/, error: "must be an http or https address" }).optional(),
    NOTIFY_ON: z.enum(["always", "failure"], "must be always or failure").default("always"),
  });
};

/** Settings that may carry a secret: they are named, never shown. */
const SECRET = ["NOTIFY_URL"];

/** What a run works with. Paths are absolute; times are seconds. */
export interface Settings {
  dockerCmd: string;
  composeFiles: string[];
  project: string;
  nginxContainer: string;
  /** The folder beside the (first) compose file that nginx has mounted. */
  nginxFolder: string;
  nginxPort: number;
  /** The address that nginx's port is published on; undefined for all. */
  nginxBind: string | undefined;
  /** Where this machine asks nginx, without a path at its end. */
  nginxUrl: string;
  authPort: number;
  /** The largest request body, as nginx writes it. */
  bodyMax: string;
  /** Addresses and networks of the proxies whose forwarded headers are believed. */
  trustedProxies: readonly string[];
  ports: Readonly<Record<Color, number>>;
  vaultPath: string;
  /** The folder that a color is built from. */
  apiContext: string;
  /** How long, in seconds, the API keeps a connection open that no request uses; 0: it closes each after its response. */
  apiIdleSeconds: number;
  /** The most memory that a color may take: as it is set, and in bytes; 0 for no limit. */
  apiMemory: { set: string; bytes: number };
  activeColorFile: string;
  /** The state file that versions before STATE_DIR used, with lock, history and log beside it. */
  oldStateFile: string;
  oauthDataPath: string;
  health: { retries: number; interval: number; timeout: number };
  /** How long a build may take: one that hangs would hold the lock for ever. */
  buildSeconds: number;
  verifySeconds: number;
  drainSeconds: number;
  /** What becomes of the color that is left: paused, it keeps its memory and is back at once. */
  standby: "stopped" | "paused";
  /** All that a run trusts: lock, record of the active color, history, log. No container can write there. */
  stateDir: string;
  /** Locked by a run, and what it leaves written for the next when it is killed. */
  lockFile: string;
  logFile: string;
  /** Which color was marked as active, as a run goes by it. */
  recordFile: string;
  /** One JSON line a run. */
  historyFile: string;
  notifyUrl: string | undefined;
  notifyOn: "always" | "failure";
  /** What Compose fills its file with: the process environment over the settings file over the defaults. */
  environment: Record<string, string>;
  /** What was set and is not gone by, in words. */
  warnings: readonly string[];
}

/** An address to ask where nginx is published on this one. */
const reachedAt = (bind: string | undefined): string =>
  bind === undefined || bind === "0.0.0.0" ? "127.0.0.1" : bind;

/** Compose, too, takes a variable that is set to nothing as not set. */
const withoutEmpty = (environment: Environment): Record<string, string> =>
  Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => !!entry[1]));

const refuse = (problems: string[]): never => {
  throw new UsageError("Wrong settings", {
    details: problems.join("\n"),
    next: `Correct them in the environment or in ${join(ROOT, SETTINGS_FILE)}; nothing was changed.`,
  });
};

function readSettingsFile(file: string): Environment {
  if (!existsSync(file)) return {};
  try {
    return parseEnv(readFileSync(file, "utf8"));
  } catch (error) {
    return refuse([`${file} cannot be read: ${error}`]);
  }
}

function equalPorts(ports: Record<string, number>): string[] {
  const names = Object.keys(ports);
  return names.flatMap((a, i) =>
    names
      .slice(i + 1)
      .filter((b) => ports[a] === ports[b])
      .map((b) => `${a} and ${b} are both ${ports[a]}: each needs a port of its own`),
  );
}

/** A path with its symbolic links resolved, as far as it exists. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}

/** The folders that containers can write to. */
type Mounts = Pick<Settings, "vaultPath" | "oauthDataPath">;

/** In which of these folders a path is, by whatever name, in words; undefined when in none. */
function reachable(path: string, { vaultPath, oauthDataPath }: Mounts): string | undefined {
  const mounts = Object.entries({ VAULT_PATH: vaultPath, OAUTH_DATA_PATH: oauthDataPath });
  const found = mounts.find(
    ([, folder]) => isInside(path, folder) || isInside(realPath(path), realPath(folder)),
  );
  return found && `containers can write there, it is inside ${found[0]} (${found[1]})`;
}

/** Something that decides what root runs or writes. */
interface Place {
  name: string;
  path: string;
  remedy: string;
}

const placeOf = (name: string, path: string): Place => ({
  name,
  path,
  remedy: `set ${name} to a place outside`,
});

/** What root writes where a container can put a symbolic link, it writes to any file of this host; what it runs from there is the container's. */
const reachableOf = (places: readonly Place[], mounts: Mounts): string[] =>
  places.flatMap(({ name, path, remedy }) => {
    const why = reachable(path, mounts);
    return why ? [`${name} is ${JSON.stringify(path)}: ${why}; ${remedy}`] : [];
  });

const composePlaces = (files: readonly string[]): Place[] =>
  files.map((file) => placeOf("COMPOSE_FILE", file));

/** What a run uses that no container may be able to write to. A rollback meets compose files later, if at all, and no sources. */
function placesOf(needs: Needs, settings: Settings, authContext: string): Place[] {
  const { stateDir, nginxFolder, composeFiles, apiContext } = settings;
  const state = placeOf("STATE_DIR", stateDir);
  if (needs === "nothing") return [state];
  const checkout = { name: "The checkout", path: resolve(ROOT), remedy: "move it to a place outside" };
  const nginx = {
    name: "The folder of nginx's configuration",
    path: nginxFolder,
    remedy: "set COMPOSE_FILE, which it lies beside, to a place outside",
  };
  const sources = [
    ...composePlaces(composeFiles),
    placeOf("LOOP_API_CONTEXT", apiContext),
    placeOf("LOOP_AUTH_CONTEXT", authContext),
  ];
  const all = [state, nginx, ...(needs === "vault and sources" ? sources : [])];
  // Where all of the checkout is inside, one line says it.
  if (reachable(checkout.path, settings))
    return [checkout, ...all.filter(({ path }) => !isInside(path, checkout.path))];
  return all;
}

/** Refuses compose files that containers can write to, before Compose makes a container by them. Throws UsageError. */
export function checkComposeFiles(settings: Settings): void {
  const exposed = reachableOf(composePlaces(settings.composeFiles), settings);
  if (exposed.length > 0) refuse(exposed);
}

/**
 * The settings: `environment` over the file `.env.blue-green` in the checkout over the defaults.
 * Throws UsageError that lists every wrong one, folders among them that are needed and away. Changes nothing.
 */
export function loadSettings(
  environment: Environment = process.env,
  settingsFile = join(ROOT, SETTINGS_FILE),
  needs: Needs = "vault and sources",
): Settings {
  const fromFile = readSettingsFile(settingsFile);
  const merged = { ...withoutEmpty(fromFile), ...withoutEmpty(environment) };
  const parsed = rawSettings(needs).safeParse(merged);
  if (!parsed.success) {
    return refuse(
      parsed.error.issues.map(
        ({ path: [name], message }) =>
          `${String(name)}${SECRET.includes(String(name)) ? "" : ` is ${JSON.stringify(merged[String(name)])}`}: it ${message}`,
      ),
    );
  }
  const raw = parsed.data;
  const { NGINX_PORT, BLUE_PORT, GREEN_PORT, AUTH_PORT } = raw;
  const clashes = equalPorts({ NGINX_PORT, BLUE_PORT, GREEN_PORT, AUTH_PORT });
  if (clashes.length > 0) return refuse(clashes);

  const composeFiles = raw.COMPOSE_FILE.split(":").map((file) => resolve(ROOT, file));
  // The way back starts containers that are there: where Compose is needed after all, it says itself what it misses.
  const missing = needs === "vault and sources" ? composeFiles.filter((file) => !existsSync(file)) : [];
  if (missing.length > 0)
    return refuse(missing.map((file) => `COMPOSE_FILE names ${file}, which does not exist`));

  const project = raw.COMPOSE_PROJECT_NAME;
  // Two projects may share a vault, and each has an active color of its own.
  const colorFile = project === "loop" ? ".active-color" : `.active-color.${project}`;
  const activeColorFile = raw.ACTIVE_COLOR_FILE ?? join(raw.VAULT_PATH, "_build", colorFile);
  const stateDir = raw.STATE_DIR ?? join(ROOT, ".state", project);
  const ownLog = join(stateDir, "blue-green.log");
  const mounts = { vaultPath: raw.VAULT_PATH, oauthDataPath: raw.OAUTH_DATA_PATH };
  // The example file once had it there: no reason for a night without a release.
  const whyNotLog = raw.LOG_FILE && reachable(raw.LOG_FILE, mounts);
  const warnings = whyNotLog
    ? [
        `LOG_FILE is not used: ${raw.LOG_FILE}: ${whyNotLog}. The log is ${ownLog}; remove LOG_FILE, or set it to a place outside`,
      ]
    : [];
  const nginxContainer = raw.NGINX_CONTAINER ?? `${raw.COMPOSE_PROJECT_NAME}-nginx`;
  const resolved = { ...raw, NGINX_CONTAINER: nginxContainer };
  const settings: Settings = {
    dockerCmd: raw.DOCKER_CMD,
    composeFiles,
    project,
    nginxContainer,
    nginxFolder: join(dirname(composeFiles[0] ?? ROOT), "nginx"),
    nginxPort: NGINX_PORT,
    nginxBind: raw.NGINX_BIND,
    nginxUrl: `http://${reachedAt(raw.NGINX_BIND)}:${NGINX_PORT}`,
    authPort: AUTH_PORT,
    bodyMax: raw.BODY_MAX,
    trustedProxies: raw.TRUSTED_PROXIES ?? [],
    ports: { blue: BLUE_PORT, green: GREEN_PORT },
    vaultPath: raw.VAULT_PATH,
    apiContext: raw.LOOP_API_CONTEXT,
    apiIdleSeconds: raw.API_IDLE_SECONDS,
    apiMemory: { set: raw.API_MEMORY, bytes: bytesIn(raw.API_MEMORY) },
    activeColorFile,
    oldStateFile: raw.ACTIVE_COLOR_FILE ?? join(raw.VAULT_PATH, "_build/.active-color"),
    oauthDataPath: raw.OAUTH_DATA_PATH,
    health: { retries: raw.HEALTH_RETRIES, interval: raw.HEALTH_INTERVAL, timeout: raw.HEALTH_TIMEOUT },
    buildSeconds: raw.BUILD_SECONDS,
    verifySeconds: raw.VERIFY_SECONDS,
    drainSeconds: raw.DRAIN_SECONDS,
    standby: raw.STANDBY,
    stateDir,
    lockFile: join(stateDir, "lock"),
    recordFile: join(stateDir, "active-color"),
    historyFile: join(stateDir, "history.jsonl"),
    logFile: whyNotLog ? ownLog : (raw.LOG_FILE ?? ownLog),
    notifyUrl: raw.NOTIFY_URL,
    notifyOn: raw.NOTIFY_ON,
    environment: {
      ...merged,
      ...Object.fromEntries(Object.entries(resolved).map(([name, value]) => [name, String(value ?? "")])),
    },
    warnings,
  };
  const exposed = reachableOf(placesOf(needs, settings, raw.LOOP_AUTH_CONTEXT), settings);
  return exposed.length > 0 ? refuse(exposed) : settings;
}

/** Spec `get_host_port`: the port on this host behind which a color's container listens. */
export const getHostPort = (settings: Settings, color: Color): number => settings.ports[color];

/** Makes the folder that auth keeps its data in, for its owner only, where there is none. Throws UsageError where it cannot be made. */
export async function createFolders({ settings: { oauthDataPath }, step }: Stack): Promise<void> {
  if (isFolder(oauthDataPath)) return;
  await step("make the folder of auth", () => makeOauthFolder(oauthDataPath), [
    `mkdir -m 700 ${oauthDataPath}`,
  ]);
}

/** The same for the way back, which does without: the folder is only missed where a container is made anew. */
export async function createFoldersForWayBack(stack: Stack): Promise<void> {
  await createFolders(stack).catch((error) => {
    if (!(error instanceof UsageError)) throw error;
    stack.log.warn(`${error.message}; the rollback continues without it: ${error.details}`);
  });
}

async function makeOauthFolder(path: string): Promise<void> {
  try {
    await makeFolder(path, 0o700);
  } catch (error) {
    throw new UsageError(`Cannot make the folder ${path} (OAUTH_DATA_PATH)`, {
      details: String(error),
      next: "Make its parent folder, or point OAUTH_DATA_PATH elsewhere; nothing was changed.",
    });
  }
}
