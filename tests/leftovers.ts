import { execFile } from "node:child_process";
import { readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { prefixOf } from "../bench/testbed/temp.ts";

/** Gives what docker prints; undefined when it fails, also where there is no docker or no engine. */
type Docker = (...args: string[]) => Promise<string | undefined>;

const realDocker: Docker = (...args) =>
  promisify(execFile)("docker", args, { timeout: 60_000, killSignal: "SIGKILL" }).then(
    ({ stdout }) => stdout,
    () => undefined,
  );

/** What the names of a run's things begin with. Throws where there is no id: all that any run has made would match. */
function ownPrefix(run: string): string {
  if (!/^[a-z0-9]+$/.test(run)) throw new Error(`not the id of a run: "${run}"`);
  return prefixOf(run);
}

const PROJECT = '{{.Label "com.docker.compose.project"}}';

/** In this order: a network goes when nothing is in it, an image when no container uses it. First, what to remove it by. */
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
    list: ["images", "--format", "{{.Repository}}:{{.Tag}} {{.Repository}}:{{.Tag}}"],
    remove: ["rmi", "--force"],
  },
];

/** Removes what is left in Docker of a run's projects, and tells it. */
export async function removeFromDocker(run: string, docker: Docker = realDocker): Promise<string[]> {
  const prefix = ownPrefix(run);
  const told: string[] = [];
  for (const { kind, list, remove } of KINDS) {
    const lines = ((await docker(...list)) ?? "").split("\n");
    const found = lines
      .map((line) => line.split(" "))
      .filter((words) => words.some((word) => word.startsWith(prefix)));
    if (found.length === 0) continue;
    const removed = await docker(...remove, ...found.map(([id = ""]) => id));
    const names = found.map(([, name]) => name).join(", ");
    told.push(`${kind} ${names}${removed === undefined ? " (not all could be removed)" : ""}`);
  }
  return told;
}

/**
 * Kills what still runs with the run's id in its environment. Its process group does not tell: each command of a release
 * has one of its own, and would go on to make containers. Where there is no /proc, nothing is found.
 */
export async function endProcesses(run: string): Promise<void> {
  const marks = [ownPrefix(run), `LOOP_TEST_RUN=${run}\0`];
  for (const pid of await readdir("/proc").catch(() => [])) {
    const environment = /^\d+$/.test(pid) && (await readFile(`/proc/${pid}/environ`, "utf8").catch(() => ""));
    if (!environment || !marks.some((mark) => environment.includes(mark))) continue;
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It has just ended by itself.
    }
  }
}

/** Removes a run's temp folders; gives those that would not go, as one where something is mounted. */
export async function removeFolders(run: string, parent = tmpdir()): Promise<string[]> {
  const prefix = ownPrefix(run);
  const stay: string[] = [];
  for (const name of (await readdir(parent)).filter((name) => name.startsWith(prefix))) {
    const path = join(parent, name);
    await rm(path, { recursive: true, force: true }).catch(() => stay.push(path));
  }
  return stay;
}
