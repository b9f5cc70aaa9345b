import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseEnv } from "node:util";
import { type Api, apiSettings, isAuthPath } from "./api.ts";
import type { Color } from "./color.ts";
import { UsageError } from "./errors.ts";
import { exposureOf } from "./exposure.ts";
import { composePlaces, exposedPlaces, type Needs, placesOf } from "./places.ts";
import { isFolder, MAY_BE_EMPTY, MUST_EXIST, NO_VAULT, rawSettings, SECRET } from "./settings-schema.ts";
import { parseExpectation } from "./util/expectation.ts";
import { bytesIn } from "./util/formats.ts";
import type { NotifyFormat } from "./util/notify-formats.ts";

/** The checkout. Relative paths in settings start here, so that cron's working directory does not matter. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SETTINGS_FILE = ".env.blue-green";

type Environment = Readonly<Record<string, string | undefined>>;

/** The settings of a run. Paths are absolute, times in seconds. */
export interface Settings {
  dockerCmd: string;
  /** What runs the colors. */
  engine: "compose" | "swarm";
  /** How many replicas a color has in a swarm. */
  replicas: number;
  /** Where builds are pushed for the nodes of a swarm, such as registry:5000/loop; undefined for nowhere. */
  registry: string | undefined;
  composeFiles: string[];
  project: string;
  nginxContainer: string;
  /** The folder that nginx mounts, beside the first compose file. */
  nginxFolder: string;
  nginxPort: number;
  /** The address on which nginx's port is published; undefined for all. */
  nginxBind: string | undefined;
  /** nginx's URL from this machine, without a path. */
  nginxUrl: string;
  authPort: number;
  /** The largest request body, in nginx's notation. */
  bodyMax: string;
  /** Addresses and networks of the proxies whose forwarded headers nginx trusts. */
  trustedProxies: readonly string[];
  ports: Readonly<Record<Color, number>>;
  /** The data folder of the API; undefined for an API without one. */
  vaultPath: string | undefined;
  /** The API of the next release; see lib/engine/apis.ts for the colors that exist. */
  api: Api;
  /** The image that a release pulls instead of building one; undefined to build. */
  apiImage: string | undefined;
  /** The build context of both colors. */
  apiContext: string;
  /** The memory limit of a color: as set, and in bytes; 0 for no limit. */
  apiMemory: { set: string; bytes: number };
  activeColorFile: string;
  /** The state file of versions before STATE_DIR, which kept lock, history and log beside it; undefined without a vault. */
  oldStateFile: string | undefined;
  oauthDataPath: string;
  health: { retries: number; interval: number; timeout: number };
  /** The owner's test of a new color before the switch, for `/bin/sh -c`; undefined for none. */
  smoke: { command: string | undefined; seconds: number };
  /** The folder of hooks; undefined for none. */
  hooksPath: string | undefined;
  hookSeconds: number;
  /** The time limit of a build or pull: a hung one would hold the lock forever. */
  buildSeconds: number;
  /** How many releases keep their image. */
  keepReleases: number;
  verifySeconds: number;
  drainSeconds: number;
  /** The share of the new requests that a new color gets before the switch, and for how many seconds; 0 percent: none. */
  canary: { percent: number; seconds: number };
  /** When the responses of a new color are bad, and how many are enough to judge; see `judge` in lib/release/verdict.ts. */
  judge: { errors: number; percent: number; responses: number };
  /** How long the previous color serves its own sessions after a switch, at most; 0: not at all. */
  sessionSeconds: number;
  /** It stops serving them when none was used for this long. */
  sessionIdleSeconds: number;
  /** The state of the idle color: a paused one keeps its memory and is back at once. */
  standby: "stopped" | "paused";
  /** Everything a run trusts: lock, color record, history, log. No container can write there. */
  stateDir: string;
  /** The lock file, with the run record for the run after a crash. */
  lockFile: string;
  logFile: string;
  /** The color record: the color that was marked last. */
  recordFile: string;
  /** One JSON line per run. */
  historyFile: string;
  notifyUrl: string | undefined;
  notifyOn: "always" | "failure";
  notifyFormat: NotifyFormat;
  /** The environment of docker commands: the process environment overrides the settings file, which overrides the defaults. */
  environment: Record<string, string>;
  /** Settings that are ignored, and why, in words. */
  warnings: readonly string[];
}

/** The address to reach a port that is published on `bind`. */
export const reachedAt = (bind: string | undefined): string =>
  bind === undefined || bind === "0.0.0.0" ? "127.0.0.1" : bind;

/** Any other empty variable counts as not set, as in Compose. */
const withoutEmpty = (environment: Environment): Record<string, string> =>
  Object.fromEntries(
    Object.entries(environment).filter(
      (entry): entry is [string, string] =>
        !!entry[1] || (entry[1] === "" && MAY_BE_EMPTY.includes(entry[0])),
    ),
  );

const refuse = (problems: string[]): never => {
  throw new UsageError("Wrong settings", {
    details: problems.join("\n"),
    next: `Correct them in the environment or in ${join(ROOT, SETTINGS_FILE)}; nothing was changed.`,
  });
};

/** What makes Compose mount an empty, read-only tmpfs in place of a folder: it cannot leave out a mount. */
export const emptyMount = (name: string): Record<string, string> => ({
  [`LOOP_${name}_MOUNT`]: "tmpfs",
  [`LOOP_${name}_SOURCE`]: "",
  [`LOOP_${name}_READ_ONLY`]: "true", // a writable one would be memory without a limit of its own
});

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

/** Rejects compose files that containers can write to, before Compose creates a container from them. Throws UsageError. */
export function checkComposeFiles(settings: Settings): void {
  const exposed = exposedPlaces(composePlaces(settings.composeFiles), settings);
  if (exposed.length > 0) refuse(exposed);
}

/** Without ENGINE=swarm, these names may mean something else on a machine: their values are ignored, and Compose gets no defaults. */
const NOT_IN_SWARM = { REPLICAS: undefined, REGISTRY: undefined };

/**
 * Loads the settings: `environment` overrides the file `.env.blue-green` in the checkout, which overrides the defaults.
 * Throws UsageError that lists every wrong setting and missing folder. Changes nothing.
 */
export function loadSettings(
  environment: Environment = process.env,
  settingsFile = join(ROOT, SETTINGS_FILE),
  needs: Needs = "vault and sources",
): Settings {
  const fromFile = readSettingsFile(settingsFile);
  const merged = { ...withoutEmpty(fromFile), ...withoutEmpty(environment) };
  const inSwarm = merged.ENGINE === "swarm";
  const parsed = rawSettings(ROOT, needs, !!merged.LOOP_API_IMAGE).safeParse(
    inSwarm ? merged : { ...merged, ...NOT_IN_SWARM },
  );
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
  const auth = raw.AUTH === "on";
  const clashes = equalPorts({ NGINX_PORT, BLUE_PORT, GREEN_PORT, ...(auth ? { AUTH_PORT } : {}) });
  if (clashes.length > 0) return refuse(clashes);
  if (auth && needs === "vault and sources" && !isFolder(raw.LOOP_AUTH_CONTEXT))
    return refuse([
      `LOOP_AUTH_CONTEXT is ${JSON.stringify(raw.LOOP_AUTH_CONTEXT)}: it ${MUST_EXIST} Without auth, set AUTH=off`,
    ]);
  if (auth && isAuthPath(raw.HEALTH_PATH))
    return refuse([
      `HEALTH_PATH is ${JSON.stringify(raw.HEALTH_PATH)}: nginx sends this path to auth; set another path, or AUTH=off`,
    ]);

  const composeFiles = raw.COMPOSE_FILE.split(":").map((file) => resolve(ROOT, file));
  // A rollback starts existing containers. If it needs Compose after all, Compose reports a missing file itself.
  const missing = needs === "vault and sources" ? composeFiles.filter((file) => !existsSync(file)) : [];
  if (missing.length > 0)
    return refuse(missing.map((file) => `COMPOSE_FILE names ${file}, which does not exist`));

  const project = raw.COMPOSE_PROJECT_NAME;
  // Two projects may share a vault, but each has its own active color.
  const colorFile = project === "loop" ? ".active-color" : `.active-color.${project}`;
  const stateDir = raw.STATE_DIR ?? join(ROOT, ".state", project);
  const vaultPath = raw.VAULT_PATH ?? undefined;
  const inVault = (file: string): string | undefined => vaultPath && join(vaultPath, "_build", file);
  const activeColorFile = raw.ACTIVE_COLOR_FILE ?? inVault(colorFile) ?? join(stateDir, ".active-color");
  const ownLog = join(stateDir, "blue-green.log");
  const mounts = { vaultPath, oauthDataPath: raw.OAUTH_DATA_PATH };
  // An old example file put the log there; that must not stop a nightly release.
  const whyNotLog = raw.LOG_FILE && exposureOf(raw.LOG_FILE, mounts);
  const warnings = whyNotLog
    ? [
        `LOG_FILE=${raw.LOG_FILE} is ignored: ${whyNotLog}. The log is ${ownLog}. Remove LOG_FILE, or set it to a path outside`,
      ]
    : [];
  const nginxContainer = raw.NGINX_CONTAINER ?? `${raw.COMPOSE_PROJECT_NAME}-nginx`;
  const api: Api = {
    port: raw.API_PORT,
    healthPath: raw.HEALTH_PATH,
    expect: parseExpectation(raw.HEALTH_EXPECT),
    auth: raw.AUTH,
    idleSeconds: raw.API_IDLE_SECONDS,
  };
  const resolved = { ...raw, NGINX_CONTAINER: nginxContainer, VAULT_PATH: vaultPath ?? NO_VAULT };
  const settings: Settings = {
    dockerCmd: raw.DOCKER_CMD,
    engine: raw.ENGINE,
    replicas: raw.REPLICAS,
    registry: raw.REGISTRY,
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
    vaultPath,
    api,
    apiImage: raw.LOOP_API_IMAGE || undefined,
    apiContext: raw.LOOP_API_CONTEXT,
    apiMemory: { set: raw.API_MEMORY, bytes: bytesIn(raw.API_MEMORY) },
    activeColorFile,
    oldStateFile: raw.ACTIVE_COLOR_FILE ?? inVault(".active-color"),
    oauthDataPath: raw.OAUTH_DATA_PATH,
    health: { retries: raw.HEALTH_RETRIES, interval: raw.HEALTH_INTERVAL, timeout: raw.HEALTH_TIMEOUT },
    smoke: { command: raw.SMOKE_COMMAND, seconds: raw.SMOKE_SECONDS },
    hooksPath: raw.HOOKS_PATH,
    hookSeconds: raw.HOOK_SECONDS,
    buildSeconds: raw.BUILD_SECONDS,
    keepReleases: raw.KEEP_RELEASES,
    verifySeconds: raw.VERIFY_SECONDS,
    drainSeconds: raw.DRAIN_SECONDS,
    canary: { percent: raw.CANARY_PERCENT, seconds: raw.CANARY_SECONDS },
    judge: { errors: raw.JUDGE_ERRORS, percent: raw.JUDGE_PERCENT, responses: raw.JUDGE_RESPONSES },
    sessionSeconds: raw.SESSION_SECONDS,
    sessionIdleSeconds: raw.SESSION_IDLE_SECONDS,
    standby: raw.STANDBY,
    stateDir,
    lockFile: join(stateDir, "lock"),
    recordFile: join(stateDir, "active-color"),
    historyFile: join(stateDir, "history.jsonl"),
    logFile: whyNotLog ? ownLog : (raw.LOG_FILE ?? ownLog),
    notifyUrl: raw.NOTIFY_URL,
    notifyOn: raw.NOTIFY_ON,
    notifyFormat: raw.NOTIFY_FORMAT,
    environment: {
      ...merged,
      ...Object.fromEntries(
        Object.entries(resolved)
          .filter(([name]) => inSwarm || !(name === "ENGINE" || name in NOT_IN_SWARM))
          .map(([name, value]) => [name, String(value ?? "")]),
      ),
      ...apiSettings(api),
      ...(vaultPath === undefined ? emptyMount("VAULT") : {}),
    },
    warnings,
  };
  const authContext = auth ? raw.LOOP_AUTH_CONTEXT : undefined;
  const trusted = { ...settings, checkout: resolve(ROOT), authContext };
  const exposed = exposedPlaces(placesOf(needs, trusted), settings);
  return exposed.length > 0 ? refuse(exposed) : settings;
}

/** Spec `get_host_port`: the host port of a color's container. */
export const getHostPort = (settings: Settings, color: Color): number => settings.ports[color];
