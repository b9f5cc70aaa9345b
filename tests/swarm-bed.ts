import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Test } from "uvu";
import * as assert from "uvu/assert";
import { type Load, type Shot, startLoad } from "../bench/testbed/load.ts";
import { hasRegistry } from "../bench/testbed/registry.ts";
import { addVaultFile, createScratch, EXAMPLE_API, type Scratch, waitFor } from "../bench/testbed/scratch.ts";
import { slimImages } from "../bench/testbed/slim.ts";
import { canHaveSwarm, createSwarm, type Node, type Swarm } from "../bench/testbed/swarm.ts";
import { type Color, isColor } from "../lib/color.ts";
import type { Status } from "../lib/release/status-report.ts";
import { ROOT } from "../lib/settings.ts";
import { suite } from "./suite.ts";

/** Engines, a stack on the first, and what the tests of a swarm do with them. */
export interface Bed {
  swarm: Swarm;
  stack: Scratch;
  /** The image of the API, on the manager. */
  image: string;
  loads: { stop(): Promise<unknown> }[];
}

/** Creates the engines, joined into a swarm or not, and the settings of a stack. Starts none of its containers. */
export async function createBed(joined: boolean, nodes = 3): Promise<Bed> {
  const own = await createScratch("swarm");
  const { api: image, nginx } = await slimImages(own.project, process.env.LOOP_TEST_API || EXAMPLE_API);
  const swarm = await createSwarm(nodes, [nginx, image], joined);
  await own.remove();
  const stack = await createScratch("swarm", "stack", swarm.nodes[0]);
  delete stack.env.ACTIVE_COLOR_FILE;
  Object.assign(stack.env, { AUTH: "off", NGINX_IMAGE: nginx });
  await addVaultFile(stack);
  return { swarm, stack, image, loads: [] };
}

/** Three engines in a swarm, with a stack of three replicas after two releases, 1.0.0 and 1.0.1. */
export async function createReleasedBed(): Promise<Bed> {
  const bed = await createBed(true);
  const { stack, swarm } = bed;
  Object.assign(stack.env, { ENGINE: "swarm", REPLICAS: "3", REGISTRY: swarm.registry });
  for (const number of ["1.0.0", "1.0.1"]) await succeed(stack.deploy([], await version(bed, number)));
  return bed;
}

/** A suite whose tests share the bed that `create` makes. Without root, `run` skips them. */
export function swarmSuite(name: string, create: () => Promise<Bed>): { tests: Test<Bed>; run(): void } {
  const tests = suite<Bed>(name);
  tests.before(async (bed) => void Object.assign(bed, await create()));
  tests.after.each(async ({ loads }) => {
    for (const load of loads.splice(0)) await load.stop();
  });
  tests.after(async ({ swarm, stack }) => {
    await stack.remove();
    await swarm.remove();
  });
  if (canHaveSwarm && hasRegistry) return { tests, run: () => tests.run() };
  const skipped = suite(name);
  skipped.skip("needs root and docker-registry", () => undefined);
  return { tests, run: () => skipped.run() };
}

export const url = ({ stack, swarm }: Bed): string =>
  `http://${swarm.nodes[0]?.address}:${stack.env.NGINX_PORT}`;

const MAIN = join(EXAMPLE_API, "api/main.py");

/** Writes sources of the API that replace these files in its image. Returns LOOP_API_CONTEXT for them. */
async function sources({ stack, image }: Bed, name: string, files: Readonly<Record<string, string>>) {
  const folder = join(stack.folder, name);
  await mkdir(folder);
  await writeFile(join(folder, "Dockerfile"), `FROM ${image}\nCOPY *.py api/\n`);
  for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text);
  return { LOOP_API_CONTEXT: folder };
}

/** Writes the sources of a version of the API. Returns LOOP_API_CONTEXT for it. */
export async function version(bed: Bed, number: string): Promise<Record<string, string>> {
  const main = (await readFile(MAIN, "utf8")).replace('VERSION = "1.0.0"', `VERSION = "${number}"`);
  return sources(bed, `api-${number}`, { "main.py": main });
}

/** Writes the sources of an API with sessions. Returns LOOP_API_CONTEXT for it. */
export async function sessionApi(bed: Bed): Promise<Record<string, string>> {
  const main = await readFile(join(ROOT, "tests/session_api.py"), "utf8");
  return sources(bed, "sessions", { "main.py": main, "stateless.py": await readFile(MAIN, "utf8") });
}

export async function succeed(run: ReturnType<Scratch["deploy"]>): Promise<string> {
  const { exitCode, stdall } = await run;
  assert.is(exitCode, 0, stdall);
  return stdall;
}

export const statusOf = async (stack: Scratch): Promise<Status> =>
  JSON.parse((await stack.status(["--json"])).stdout);

export async function serving({ stack }: Bed): Promise<Color> {
  const { status, color } = await stack.get();
  assert.is(status, 200);
  return isColor(color) ? color : (assert.unreachable(color) as never);
}

export const manager = ({ swarm }: Bed): Node => swarm.nodes[0] ?? (assert.unreachable() as never);
export const worker = ({ swarm }: Bed): Node => swarm.nodes[2] ?? (assert.unreachable() as never);

/** The replicas that run of a color, according to its status. */
export const runningIn = ({ replicas }: Status["colors"][Color]): number =>
  replicas?.filter(({ state }) => state === "running").length ?? 0;

/** The replicas that Docker runs of a color. */
export const running = async ({ stack }: Bed, color: Color): Promise<number> =>
  runningIn((await statusOf(stack)).colors[color]);

/** A smoke test that passes if 0.9.1 answers as the new color at LOOP_URL, and nothing else can be reached through it. */
export const SMOKE = [
  `curl -fsS "$LOOP_URL/health" | grep -q '"version":"0.9.1"'`,
  `test "$(curl -s --path-as-is -o /dev/null -w '%{http_code}' "$LOOP_URL/../color")" = 400`,
].join(" && ");

/** Waits until nginx has sent client requests to this many addresses of a color. */
export const waitForAddresses = ({ stack }: Bed, color: Color, count: number): Promise<void> =>
  waitFor(`nginx has used ${count} addresses`, async () => {
    const lines = (await stack.docker("logs", stack.nginxContainer)).stdout
      .split("\n")
      .filter((line) => line.includes(`color=${color}`) && line.includes("run=0"));
    return new Set(lines.flatMap((line) => line.match(/upstream=(10\.\S+)/)?.[1] ?? [])).size >= count;
  });

export function startPosts(bed: Bed): Load {
  const load = startLoad(url(bed), { clients: { post: 4, get: 2 }, thinkMs: 150, patientMs: [0, 0] });
  bed.loads.push(load);
  return load;
}

export const failures = (shots: readonly Shot[]): string[] => shots.flatMap(({ failure }) => failure ?? []);
