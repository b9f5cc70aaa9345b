import { execFile } from "node:child_process";
import { readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { IMAGE_REFERENCE, prefixOf } from "../bench/testbed/temp.ts";

/** Returns docker's output; undefined if it fails, or if there is no docker or engine. */
type Docker = (...args: string[]) => Promise<string | undefined>;

const realDocker: Docker = (...args) =>
  promisify(execFile)("docker", args, { timeout: 60_000, killSignal: "SIGKILL" }).then(
    ({ stdout }) => stdout,
    () => undefined,
  );

/** The prefix of the names that a run uses. Throws without an id, because the prefix would match those of all runs. */
function prefixOfRun(run: string): string {
  if (!/^[a-z0-9]+$/.test(run)) throw new Error(`not the id of a run: "${run}"`);
  return prefixOf(run);
}

const PROJECT = '{{.Label "com.docker.compose.project"}}';

/** In order of removal: networks and images cannot be removed while containers use them. The first listed word identifies an item. */
const KINDS = [
  {
    kind: "containers",
    list: ["ps", "--all", "--format", `{{.ID}} {{.Names}} {{.Image}} ${PROJECT}`],
    remove: ["rm", "--force", "--volumes"],
  },
  {
    kind: "networks",
    list: ["network", "ls", "--format", `{{.ID}} {{.Name}} ${PROJECT}`],
    remove: ["network", "rm"],
  },
  {
    kind: "volumes",
    list: ["volume", "ls", "--format", `{{.Name}} {{.Name}} ${PROJECT}`],
    remove: ["volume", "rm", "--force"],
  },
  {
    kind: "images",
    list: ["images", "--digests", "--format", `${IMAGE_REFERENCE} ${IMAGE_REFERENCE}`],
    remove: ["rmi", "--force"],
  },
];

/** Removes what a run's projects left in Docker. Returns what it found, one line per kind. */
export async function removeFromDocker(run: string, docker: Docker = realDocker): Promise<string[]> {
  const prefix = prefixOfRun(run);
  const report: string[] = [];
  for (const { kind, list, remove } of KINDS) {
    const lines = ((await docker(...list)) ?? "").split("\n");
    const found = lines
      .map((line) => line.split(" "))
      .filter((words) => words.some((word) => word.startsWith(prefix) || word.includes(`/${prefix}`)));
    if (found.length === 0) continue;
    const removed = await docker(...remove, ...found.map(([id = ""]) => id));
    const names = found.map(([, name]) => name).join(", ");
    report.push(`${kind} ${names}${removed === undefined ? " (not all could be removed)" : ""}`);
  }
  return report;
}

/**
 * Kills all processes with the run's id in their environment. Process groups are not enough: each command of a release has its
 * own, and would continue to create containers. On systems without /proc, finds nothing.
 */
export async function endProcesses(run: string): Promise<void> {
  const patterns = [prefixOfRun(run), `LOOP_TEST_RUN=${run}\0`];
  for (const pid of await readdir("/proc").catch(() => [])) {
    const environment = /^\d+$/.test(pid) && (await readFile(`/proc/${pid}/environ`, "utf8").catch(() => ""));
    if (!environment || !patterns.some((pattern) => environment.includes(pattern))) continue;
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It just ended.
    }
  }
}

/** Removes a run's swarms, while their processes still show which are theirs. */
export async function removeSwarms(run: string, parent = tmpdir()): Promise<void> {
  const prefix = `${prefixOfRun(run)}swarm-of-`;
  for (const name of (await readdir(parent)).filter((name) => name.startsWith(prefix))) {
    const { removeSwarm } = await import("../bench/testbed/swarm.ts"); // most runs have none, and do not load it
    await removeSwarm(join(parent, name));
  }
}

/** Removes a run's temporary folders. Returns those that it cannot remove, for example because of a mount. */
export async function removeFolders(run: string, parent = tmpdir()): Promise<string[]> {
  const prefix = prefixOfRun(run);
  const remaining: string[] = [];
  for (const name of (await readdir(parent)).filter((name) => name.startsWith(prefix))) {
    const path = join(parent, name);
    await rm(path, { recursive: true, force: true }).catch(() => remaining.push(path));
  }
  return remaining;
}
