import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { $, type ProcessOutput } from "zx";
import { type Host, waitFor } from "./scratch.ts";
import { tempFolder } from "./temp.ts";

const quiet = $({ quiet: true, nothrow: true, stdio: ["ignore", "pipe", "pipe"] });
const must = $({ quiet: true, stdio: ["ignore", "pipe", "pipe"] });

/** A node of a swarm: an engine in a network namespace of its own. */
export interface Node extends Host {
  name: string;
  docker(...args: string[]): Promise<ProcessOutput>;
  /** Kills the engine and everything that it runs, as a power failure would. */
  fail(): Promise<void>;
  /** Starts the engine; after `fail` again. */
  start(): Promise<void>;
}

/** A swarm on this machine. The first node is its manager. */
export interface Swarm {
  nodes: readonly Node[];
  /** A registry that all nodes reach. */
  registry: string;
  remove(): Promise<void>;
}

/** Can this machine have network namespaces? */
export const canHaveSwarm = process.getuid?.() === 0;

/** Each swarm has a network of its own, so that two can run at a time. */
const networkOf = (id: number): string => `10.231.${id}`;

async function createNode(top: string, id: number, number: number): Promise<Node> {
  const [bridge, link] = [`lts${id}`, `lts${id}-${number}`];
  const [name, address] = [`node-${number}`, `${networkOf(id)}.${10 + number}`];
  const folder = join(top, name);
  const socket = join(folder, "docker.sock");
  await mkdir(folder);
  await must`ip netns add ${link}`;
  await must`ip link add ${link} type veth peer name eth0 netns ${link}`;
  await must`ip link set ${link} master ${bridge} up`;
  await must`ip -n ${link} addr add ${address}/24 dev eth0`;
  await must`ip -n ${link} link set eth0 up`;
  await must`ip -n ${link} link set lo up`;
  await must`ip -n ${link} route add default via ${networkOf(id)}.1`;

  // Not `ip netns exec`, which hides the cgroups. Each node has a host name of its own, as Docker names it.
  const launcher = ["nsenter", `--net=/run/netns/${link}`];
  const env = { DOCKER_HOST: `unix://${socket}` };
  const docker = (...args: string[]) => quiet({ env: { ...process.env, ...env } })`docker ${args}`;
  const pidFile = join(folder, "pid");
  const start = async (): Promise<void> => {
    await must`ip link set ${link} up`;
    const log = openSync(join(folder, "log"), "a");
    const places = [
      "--data-root",
      join(folder, "data"),
      "--exec-root",
      join(folder, "exec"),
      "--pidfile",
      pidFile,
    ];
    const options = ["--insecure-registry", `${networkOf(id)}.0/24`, "-H", env.DOCKER_HOST, ...places];
    const command = ["unshare", "--uts", "sh", "-c", 'hostname "$1"; shift; exec dockerd "$@"', "sh", name];
    const engine = spawn("nsenter", [...launcher.slice(1), ...command, ...options], {
      stdio: ["ignore", log, log],
      detached: true,
    });
    engine.unref();
    closeSync(log);
    await waitFor(`${name} answers`, async () => (await docker("version")).exitCode === 0, 30);
  };
  const fail = async (): Promise<void> => {
    await must`ip link set ${link} down`; // first: a power failure does not close connections
    await killBelow(pidFile, folder);
  };
  await start();
  return { name, address, launcher, env, docker, start, fail };
}

/** Kills an engine, its containerd, and everything that they run. */
async function killBelow(pidFile: string, folder: string): Promise<void> {
  const pid = (await readFile(pidFile, "utf8").catch(() => "")).trim();
  if (pid) await quiet`kill -KILL ${pid}`;
  const containerdPid = join(folder, "exec/containerd/containerd.pid");
  const containerd = (
    await readFile(join(folder, "exec/containerd/containerd.pid"), "utf8").catch(() => "")
  ).trim();
  if (containerd) await quiet`kill -KILL ${containerd}`;
  // Containers' first processes are children of shims, whose arguments name the folder of their engine.
  const { stdout } = await quiet`pgrep -f ${`containerd-shim.*${folder}`}`;
  for (const shim of stdout.split("\n").filter(Boolean)) {
    await quiet`pkill -KILL -P ${shim}`;
    await quiet`kill -KILL ${shim}`;
  }
  // As after a restart: the folders of process ids are empty.
  for (const file of [pidFile, containerdPid]) await rm(file, { force: true });
}

async function startRegistry(top: string, host: string): Promise<void> {
  const file = join(top, "registry.yml");
  const storage = { filesystem: { rootdirectory: join(top, "registry") } };
  await writeFile(file, JSON.stringify({ version: "0.1", storage, http: { addr: host } })); // JSON is YAML
  const server = spawn("docker-registry", ["serve", file], {
    env: { ...process.env, OTEL_TRACES_EXPORTER: "none" },
    stdio: "ignore",
    detached: true,
  });
  server.unref();
  await waitFor("the registry answers", async () => (await fetch(`http://${host}/v2/`)).status < 500);
}

/** Removes what `createSwarm` made in this folder, as far as it is left. */
export async function removeSwarm(top: string): Promise<void> {
  const id = (await readFile(join(top, "id"), "utf8").catch(() => "")).trim();
  await quiet`pkill -KILL -f ${`docker-registry serve ${top}/`}`;
  const names = (await readdir(top)).filter((name) => name.startsWith("node-"));
  for (const name of names) await killBelow(join(top, name, "pid"), join(top, name));
  if (id) {
    for (const name of names) await quiet`ip netns del ${name.replace("node", `lts${id}`)}`;
    await quiet`iptables -D FORWARD -i ${`lts${id}`} -o ${`lts${id}`} -j ACCEPT`;
    await quiet`ip link del ${`lts${id}`}`;
  }
  // A lazily unmounted namespace is busy for a moment, and what a killed engine was starting may still mount something.
  await waitFor(`${top} is removed`, async () => {
    const { stdout } = await quiet`cut -d ${" "} -f 2 /proc/mounts`;
    const mounts = stdout.split("\n").filter((place) => place.startsWith(`${top}/`));
    for (const mount of mounts.reverse()) await quiet`umount --lazy ${mount}`;
    await rm(top, { recursive: true, force: true });
    return true;
  });
}

/**
 * Creates `count` engines on this machine, and joins them into a swarm unless `joined` is false. Copies `images` from this machine's engine to
 * the first node.
 */
export async function createSwarm(count: number, images: readonly string[], joined = true): Promise<Swarm> {
  const top = await tempFolder("swarm-of");
  const id = 1 + (randomBytes(1).readUInt8() % 254);
  await writeFile(join(top, "id"), String(id));
  try {
    const [bridge, gateway] = [`lts${id}`, `${networkOf(id)}.1`];
    await must`ip link add ${bridge} type bridge`;
    await must`ip addr add ${gateway}/24 dev ${bridge}`;
    await must`ip link set ${bridge} up`;
    await must`iptables -I FORWARD -i ${bridge} -o ${bridge} -j ACCEPT`;
    const registry = `${gateway}:5000`;
    await startRegistry(top, registry);
    const nodes = await Promise.all(Array.from({ length: count }, (_, i) => createNode(top, id, i + 1)));
    const [manager, ...workers] = nodes;
    if (!manager) throw new Error("a swarm needs a node");
    const engine = manager.env.DOCKER_HOST ?? "";
    const load = must`docker save ${images} | docker --host ${engine} load --quiet`;
    const expect = async (run: Promise<ProcessOutput>): Promise<string> => {
      const { exitCode, stdout, stderr } = await run;
      if (exitCode !== 0) throw new Error(stderr);
      return stdout.trim();
    };
    if (joined) {
      await expect(manager.docker("swarm", "init", "--advertise-addr", manager.address));
      const token = await expect(manager.docker("swarm", "join-token", "--quiet", "worker"));
      const join = ["swarm", "join", "--token", token, `${manager.address}:2377`];
      await Promise.all(workers.map(({ docker }) => expect(docker(...join))));
    }
    await load;
    return { nodes, registry, remove: () => removeSwarm(top) };
  } catch (error) {
    await removeSwarm(top);
    throw error;
  }
}
