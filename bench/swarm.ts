import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProcessOutput } from "zx/core";
import { quantile } from "./figures.ts";
import { type Load, type Mix, type Shot, startLoad } from "./testbed/load.ts";
import { createScratch, EXAMPLE_API, freePort, type Scratch, waitFor } from "./testbed/scratch.ts";
import { slimImages } from "./testbed/slim.ts";
import { createSwarm, type Node } from "./testbed/swarm.ts";

const NODES = 3;
const REPLICAS = [1, 3, 6];

/** The load of the switches: keep-alive clients, slow calls and streams. */
const MIX: Mix = { clients: { post: 12, get: 12, slow: 3, stream: 3 }, thinkMs: 100, patientMs: [0, 0] };

/** Clients without think time. */
const FULL: Mix = { clients: { get: 16, post: 16 }, thinkMs: 0, patientMs: [0, 0] };

/** What was measured of one way to release. */
export interface SwarmRow {
  way: string;
  replicas: number;
  /** Requests per second at full load; NaN if it was not measured. */
  perSecond: number;
  switches: number;
  requests: number;
  /** The failures of requests, and how many each. */
  failed: Readonly<Record<string, number>>;
  /** The median seconds of a switch, from command to end. */
  seconds: number;
  /** The seconds of a release under no load, with build and push; NaN for a rolling update, which has none. */
  release: number;
}

const expectDone = (run: ProcessOutput): ProcessOutput => {
  if (run.exitCode !== 0) throw new Error(run.stdall);
  return run;
};

const tally = (shots: readonly Shot[]): Record<string, number> => {
  const failed: Record<string, number> = {};
  for (const { failure } of shots) if (failure) failed[failure] = (failed[failure] ?? 0) + 1;
  return failed;
};

/** Switches so many times under load. */
async function underLoad(url: string, switches: number, act: (i: number) => Promise<unknown>) {
  const load: Load = startLoad(url, MIX);
  const seconds: number[] = [];
  try {
    await sleep(2000);
    for (let i = 0; i < switches; i++) {
      const since = performance.now();
      await act(i);
      seconds.push((performance.now() - since) / 1000);
      await sleep(500);
    }
  } finally {
    await load.stop();
  }
  return {
    switches,
    requests: load.shots.length,
    failed: tally(load.shots),
    seconds: quantile(seconds, 0.5),
  };
}

async function perSecond(url: string, seconds: number): Promise<number> {
  const load = startLoad(url, FULL);
  await sleep(seconds * 1000);
  const done = load.shots.filter(({ failure }) => failure === undefined).length;
  await load.stop();
  return done / seconds;
}

/** nginx in front of Swarm's own updates, as this tool's: the same image, log, and reuse of connections. */
const PLAIN_NGINX = (service: string): string => `worker_processes auto;
events { worker_connections 8192; }
http {
  access_log /dev/stdout combined buffer=4k flush=1s;
  resolver 127.0.0.11 valid=1s ipv6=off;
  upstream api { zone api 64k; server ${service}:8081 resolve; keepalive 512; keepalive_timeout 1s; }
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_read_timeout 1h;
  server { listen 8080 reuseport; add_header X-Loop-Color blue always;
    location / { proxy_set_header Connection ""; proxy_pass http://api; } }
}
`;

/**
 * Swarm's own rolling update of one service, which starts each new replica before it stops an old one. Returns undefined if the kernel has no
 * virtual IPs.
 */
async function rollingUpdate(
  stack: Scratch,
  manager: Node,
  mode: "dnsrr" | "vip",
  replicas: number,
  switches: number,
): Promise<SwarmRow | undefined> {
  const name = `${stack.project}-own-${mode}`;
  const network = `${stack.project}-swarm`;
  const folder = join(stack.folder, name);
  await mkdir(folder);
  await writeFile(join(folder, "nginx.conf"), PLAIN_NGINX(name));
  const { stdout } = expectDone(
    await manager.docker(
      ...["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}"],
      `${stack.project}-api-blue`,
    ),
  );
  expectDone(
    await manager.docker(
      ...[
        "service",
        "create",
        "--quiet",
        "--name",
        name,
        "--replicas",
        String(replicas),
        "--network",
        network,
      ],
      ...[
        "--endpoint-mode",
        mode,
        "--no-resolve-image",
        "--update-order",
        "start-first",
        "--update-parallelism",
        "1",
      ],
      ...["--stop-grace-period", "30s", "--env", "LOOP_COLOR=blue", "--mount", "type=tmpfs,target=/vault"],
      ...["--health-cmd", "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8081))'"],
      ...["--health-interval", "1s", stdout.trim()],
    ),
  );
  const port = await freePort();
  expectDone(
    await manager.docker(
      ...["run", "--detach", "--name", name, "--network", network, "--publish", `${port}:8080`],
      ...["--volume", `${folder}:/etc/nginx:ro`, stack.env.NGINX_IMAGE ?? "", "nginx", "-g", "daemon off;"],
    ),
  );
  const url = `http://${manager.address}:${port}`;
  const serves = waitFor("nginx serves", async () => (await fetch(`${url}/health`)).status === 200, 60);
  if (mode === "dnsrr") await serves;
  else if (!(await serves.then(() => true).catch(() => false))) return undefined;
  const rate = await perSecond(url, 10);
  const row = await underLoad(url, switches, async (i) =>
    expectDone(await manager.docker("service", "update", "--quiet", "--env-add", `ROUND=${i}`, name)),
  );
  expectDone(await manager.docker("rm", "--force", name));
  expectDone(await manager.docker("service", "rm", name));
  return {
    way: `Swarm's own update, ${mode === "vip" ? "behind its VIP" : "DNS round robin"}`,
    replicas,
    perSecond: rate,
    release: Number.NaN,
    ...row,
  };
}

/** Measures this tool with 1, 3 and 6 replicas on three engines, then Swarm's own updates with 3. Calls `done` after each row. */
export async function measureSwarm(switches: number, done: (row: SwarmRow) => void): Promise<SwarmRow[]> {
  const own = await createScratch("swarm-bench");
  const { api: image, nginx } = await slimImages(own.project, EXAMPLE_API);
  const swarm = await createSwarm(NODES, [nginx, image]);
  await own.remove();
  const [manager] = swarm.nodes;
  if (!manager) throw new Error("no node");
  const stack = await createScratch("swarm-bench", "stack", manager);
  const rows: SwarmRow[] = [];
  const add = (row: SwarmRow | undefined): void => {
    if (row) {
      rows.push(row);
      done(row);
    } else console.warn("Skipped: Swarm's own update behind its VIP. This kernel has no virtual IPs (IPVS).");
  };
  try {
    delete stack.env.ACTIVE_COLOR_FILE;
    Object.assign(stack.env, {
      ENGINE: "swarm",
      REGISTRY: swarm.registry,
      NGINX_IMAGE: nginx,
      AUTH: "off",
      VAULT_PATH: "none",
      VERIFY_SECONDS: "1",
      DRAIN_SECONDS: "30",
      API_IDLE_SECONDS: "2",
    });
    const context = join(stack.folder, "api");
    await mkdir(context);
    await writeFile(join(context, "main.py"), await readFile(join(EXAMPLE_API, "api/main.py")));
    await writeFile(join(context, "Dockerfile"), `FROM ${image}\nCOPY main.py api/main.py\n`);
    stack.env.LOOP_API_CONTEXT = context;
    const url = `http://${manager.address}:${stack.env.NGINX_PORT}`;
    for (const replicas of REPLICAS) {
      stack.env.REPLICAS = String(replicas);
      expectDone(await stack.deploy());
      const since = performance.now();
      expectDone(await stack.deploy());
      const release = (performance.now() - since) / 1000;
      const rate = await perSecond(url, 10);
      const row = await underLoad(url, switches, async () => expectDone(await stack.rollback()));
      add({ way: "this tool", replicas, perSecond: rate, release, ...row });
    }
    const { color } = await stack.get();
    if (color === "green") expectDone(await stack.rollback()); // the others use blue's image
    for (const mode of ["dnsrr", "vip"] as const) add(await rollingUpdate(stack, manager, mode, 3, switches));
  } finally {
    await stack.remove();
    await swarm.remove();
  }
  return rows;
}

/** The rows as a table. */
export function swarmTable(rows: readonly SwarmRow[]): string {
  const cells = rows.map(({ way, replicas, perSecond, switches, requests, failed, seconds, release }) => {
    const count = Object.values(failed).reduce((sum, one) => sum + one, 0);
    const kinds = Object.entries(failed).map(([kind, times]) => `${times} × ${kind}`);
    return [
      way,
      replicas,
      Math.round(perSecond).toLocaleString("en"),
      switches,
      requests.toLocaleString("en"),
      count === 0 ? "0" : `**${count}** (${kinds.join(", ")})`,
      `${seconds.toFixed(1)} s`,
      Number.isNaN(release) ? "" : `${release.toFixed(1)} s`,
    ];
  });
  const head = [
    "",
    "replicas",
    "req/s at full load",
    "switches",
    "requests during the switches",
    "failed",
    "time per switch",
    "time of a release, with build and push",
  ];
  return [head, head.map(() => "---"), ...cells].map((row) => `| ${row.join(" | ")} |`).join("\n");
}
