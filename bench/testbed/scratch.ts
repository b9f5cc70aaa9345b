import { randomInt } from "node:crypto";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { $, type ProcessOutput } from "zx";
import { COLORS, type Color } from "../../lib/color.ts";
import { keyHeaders } from "../../lib/nginx/key.ts";
import { ROOT } from "../../lib/settings.ts";
import { release } from "./released.ts";
import { type Script, scriptCommand } from "./script.ts";
import { IMAGE_REFERENCE, tempFolder } from "./temp.ts";

// With a socket as standard input, bash believes it is a remote shell and reads ~/.bashrc every time.
const quiet = $({ quiet: true, nothrow: true, stdio: ["ignore", "pipe", "pipe"] });

/** The example API. */
export const EXAMPLE_API = join(ROOT, "examples/loop-api");

/** What stacks release: the example API, from `tests/run.mts` without FastAPI, which takes long to start. */
const API = process.env.LOOP_TEST_API || EXAMPLE_API;

/** The example of auth. */
export const EXAMPLE_AUTH = join(ROOT, "examples/loop-auth");

/** The auth of stacks: the example, from `tests/run.mts` a server that only answers. */
const AUTH = process.env.LOOP_TEST_AUTH || EXAMPLE_AUTH;

/** The lines of nginx/api-upstreams.conf about idle connections. */
export const CONNECTION_LINES = /keepalive \d+;(\s+keepalive_timeout \w+;)?/g;

/** A complete, isolated stack: its own project, ports, containers, images and folders. */
export interface Scratch {
  /** The machine that it runs on. */
  launcher: readonly string[];
  folder: string;
  project: string;
  env: Record<string, string>;
  nginxContainer: string;
  stateFile: string;
  /** Its STATE_DIR, outside its vault. */
  stateDir: string;
  deploy(args?: string[], env?: Record<string, string>): Promise<ProcessOutput>;
  rollback(args?: string[], env?: Record<string, string>): Promise<ProcessOutput>;
  /** Runs scripts/status.mts. */
  status(args?: string[], env?: Record<string, string>): Promise<ProcessOutput>;
  /** Runs scripts/doctor.mts. */
  doctor(args?: string[], env?: Record<string, string>): Promise<ProcessOutput>;
  /** Runs scripts/end-sessions.mts. */
  endSessions(args?: string[], env?: Record<string, string>): Promise<ProcessOutput>;
  docker(...args: string[]): Promise<ProcessOutput>;
  compose(...args: string[]): Promise<ProcessOutput>;
  /** One `docker inspect` field of a container or image; "absent" if there is none. */
  field(container: string, template: string): Promise<string>;
  /** Docker's status of a color's container, such as "running"; "absent" if there is none. */
  containerStatus(color: Color): Promise<string>;
  /** The colors whose containers run. */
  running(): Promise<Color[]>;
  /** Sends a GET through nginx, by default of /health; below /_loop/ with the probe key. `color` is the X-Loop-Color header. */
  get(path?: string): Promise<{ status: number; color: string; body: string }>;
  /** The content of the state file; "no file" if there is none. */
  readStateFile(): Promise<string>;
  /** Copies the API, by default `API`, with this version number. Returns LOOP_API_CONTEXT for the copy. */
  apiVersion(version: string, api?: string): Promise<Record<string, string>>;
  /** Bundles the session API with this version number. Returns LOOP_API_CONTEXT for it. */
  sessionApi(version?: string): Promise<Record<string, string>>;
  remove(): Promise<void>;
}

/**
 * Polls a condition every `every` seconds until it holds. Fails after `seconds`. The default is long, because other test files
 * run at the same time.
 */
export async function waitFor(
  what: string,
  condition: () => Promise<boolean>,
  seconds = 30,
  every = 0.1,
): Promise<void> {
  for (let attempt = 0; attempt < seconds / every; attempt++) {
    if (await condition().catch(() => false)) return;
    await sleep(every * 1000);
  }
  assert.unreachable(`not within ${seconds} s: ${what}`);
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
      .once("error", () => resolve(false))
      .listen(port, () => server.close(() => resolve(true)));
  });

/** Below the ephemeral ports: an outgoing connection could take one of those before a container starts. */
const [LOWEST_PORT, HIGHEST_PORT] = [10_000, 32_000];
const PORTS_PER_PROCESS = 500;

/** The ports of this process, each once before any is repeated: a port can be free only because its container is stopped. */
function* ownPorts(): Generator<number, never> {
  const ranges = (HIGHEST_PORT - LOWEST_PORT) / PORTS_PER_PROCESS;
  // Test files that run at the same time have different numbers. Two processes with one range would take each other's ports.
  const range = Number(process.env.LOOP_TEST_PORTS ?? process.pid) % ranges;
  for (let i = randomInt(PORTS_PER_PROCESS); ; i++)
    yield LOWEST_PORT + range * PORTS_PER_PROCESS + (i % PORTS_PER_PROCESS);
}

const ports = ownPorts();

/** Returns a port that is free on every address, and that this process has not returned recently. */
export async function freePort(): Promise<number> {
  for (;;) {
    const { value } = ports.next();
    if (await isFree(value)) return value;
  }
}

/** The port settings of a stack. */
async function freePorts(): Promise<Record<string, string>> {
  const settings: Record<string, string> = {};
  for (const name of ["NGINX_PORT", "BLUE_PORT", "GREEN_PORT", "AUTH_PORT"])
    settings[name] = String(await freePort());
  return settings;
}

/** A machine for a stack. */
export interface Host {
  /** A command that runs the command after it on that machine. */
  launcher: readonly string[];
  /** What its docker commands need. */
  env: Readonly<Record<string, string>>;
  address: string;
}

const THIS_HOST: Host = { launcher: [], env: {}, address: "127.0.0.1" };

/** Creates the folders and settings of a scratch stack. Starts nothing. */
export async function createScratch(
  name: string,
  folderName = "stack",
  host: Host = THIS_HOST,
): Promise<Scratch> {
  const top = await tempFolder(name);
  const project = basename(top).toLowerCase();
  const folder = join(top, folderName);
  const composeFiles = ["docker-compose.blue-green.yml", "faults.yml"].map((file) => join(folder, file));
  await mkdir(folder);
  await cp(join(ROOT, "docker-compose.blue-green.yml"), join(folder, "docker-compose.blue-green.yml"));
  await cp(join(ROOT, "bench/testbed/faults.yml"), join(folder, "faults.yml"));
  await cp(join(ROOT, "nginx"), join(folder, "nginx"), {
    recursive: true,
    filter: (file) => !/\/(active-upstream|probe-key|sessions)\.conf$/.test(file),
  });
  await mkdir(join(folder, "vault"), { recursive: true });

  const env: Record<string, string> = {
    PATH: process.env.PATH ?? "",
    HOME: process.env.HOME ?? "",
    ...host.env,
    GOGC: "off", // of docker commands: they end long before collecting garbage could pay off
    COMPOSE_FILE: composeFiles.join(":"),
    COMPOSE_PROJECT_NAME: project,
    ...(await freePorts()),
    VAULT_PATH: join(folder, "vault"),
    // Set although these are the defaults: an owner's .env.blue-green in this checkout must not affect the tests.
    ACTIVE_COLOR_FILE: join(folder, "vault/_build/.active-color"),
    STATE_DIR: join(folder, "state"),
    NGINX_CONTAINER: `${project}-nginx`,
    NGINX_IMAGE: "nginx:1.30",
    OAUTH_DATA_PATH: join(folder, "oauth"),
    LOOP_API_CONTEXT: API,
    LOOP_AUTH_CONTEXT: AUTH,
    HEALTH_RETRIES: "60", // the tests must not depend on how fast this machine starts a container
    HEALTH_INTERVAL: "1",
    HEALTH_TIMEOUT: "2",
    // Short, because every release of every test waits for them; load tests and benchmarks set the defaults.
    API_IDLE_SECONDS: "0.4",
    VERIFY_SECONDS: "0.3",
    DRAIN_SECONDS: "5",
  };
  const script = (name: Script, args: string[], extra: Record<string, string>) =>
    quiet({
      env: { ...env, ...extra },
      cwd: folder,
      timeout: "120s",
    })`${[...host.launcher, ...scriptCommand(name), ...args]}`;
  const docker = (...args: string[]) => quiet({ env: { ...process.env, ...host.env } })`docker ${args}`;
  const compose = (...args: string[]) =>
    quiet({
      env,
      cwd: folder,
    })`docker compose -f ${composeFiles[0] ?? ""} -f ${composeFiles[1] ?? ""} ${args}`;
  const field = async (container: string, template: string) =>
    (await docker("inspect", "--format", template, container)).stdout.trim() || "absent";
  const containerStatus = (color: Color) => field(`${project}-api-${color}`, "{{.State.Status}}");
  const stateFile = join(folder, "vault/_build/.active-color");

  return {
    launcher: host.launcher,
    folder,
    project,
    env,
    nginxContainer: `${project}-nginx`,
    stateFile,
    stateDir: join(folder, "state"),
    deploy: (args = [], extra = {}) => script("deploy-blue-green", args, extra),
    rollback: (args = [], extra = {}) => script("rollback", args, extra),
    status: (args = [], extra = {}) => script("status", args, extra),
    doctor: (args = [], extra = {}) => script("doctor", args, extra),
    endSessions: (args = [], extra = {}) => script("end-sessions", args, extra),
    docker,
    compose,
    field,
    containerStatus,
    running: async () => {
      // One command: tests ask this after most runs.
      const names = COLORS.map((color) => `${project}-api-${color}`);
      const { stdout } = await docker("inspect", "--format", "{{.Name}} {{.State.Status}}", ...names);
      return COLORS.filter((_, i) => stdout.includes(`/${names[i]} running\n`));
    },
    get: async (path = "/health") => {
      const { statusCode, headers, body } = await request(`http://${host.address}:${env.NGINX_PORT}${path}`, {
        reset: true,
        headers: path.startsWith("/_loop/") ? await keyHeaders({ nginxFolder: join(folder, "nginx") }) : {},
      });
      return { status: statusCode, color: String(headers["x-loop-color"]), body: await body.text() };
    },
    readStateFile: () => readFile(stateFile, "utf8").catch(() => "no file"),
    apiVersion: async (version, api = API) => {
      const context = join(folder, `api-${version}`);
      await cp(api, context, { recursive: true });
      const main = join(context, "api/main.py");
      await writeFile(
        main,
        (await readFile(main, "utf8")).replace('VERSION = "1.0.0"', `VERSION = "${version}"`),
      );
      return { LOOP_API_CONTEXT: context };
    },
    sessionApi: async (version = "1.0.0") => {
      const context = join(folder, `session-api-${version}`);
      const bundle = join(context, "dist/server.cjs");
      await mkdir(context, { recursive: true });
      await cp(join(ROOT, "examples/session-api/Dockerfile"), join(context, "Dockerfile"));
      const run = await quiet({ cwd: ROOT })`npm run --silent session-api -- --outfile=${bundle}`;
      assert.is(run.exitCode, 0, run.stdall);
      const [old, current] = ['SERVER_VERSION = "1.0.0"', `SERVER_VERSION = "${version}"`];
      await writeFile(bundle, (await readFile(bundle, "utf8")).replace(old, current));
      return { LOOP_API_CONTEXT: context };
    },
    remove: async () => {
      // Not `compose down`, which takes five times the CPU time.
      const { stdout } = await docker("ps", "-aq", "--filter", `label=com.docker.compose.project=${project}`);
      await docker("rm", "--force", "--volumes", ...stdout.split("\n").filter(Boolean));
      await docker("network", "rm", `${project}_default`);
      const ours = ["--filter", `reference=${project}-*`, "--filter", `reference=*/${project}/*`];
      const images = await docker("images", "--digests", ...ours, "--format", IMAGE_REFERENCE);
      await docker("rmi", "--force", ...images.stdout.split("\n").filter(Boolean));
      await rm(top, { recursive: true, force: true });
    },
  };
}

/** Adds a file to a stack's vault, so that the vault is not empty. */
export const addVaultFile = ({ folder }: Pick<Scratch, "folder">): Promise<void> =>
  writeFile(join(folder, "vault/note.md"), "a note\n");

/** A scratch stack with these settings, as after two releases: blue serves, green is on standby. */
export async function createReleasedScratch(
  name: string,
  env: Record<string, string> = {},
): Promise<Scratch> {
  const stack = await createScratch(name);
  Object.assign(stack.env, env);
  await release(stack);
  return stack;
}
