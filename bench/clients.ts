import { $ } from "zx/core";
import { type Mix, startLoad } from "./testbed/load.ts";
import { createScratch, type Scratch } from "./testbed/scratch.ts";

const quiet = $({ quiet: true, nothrow: true, stdio: ["ignore", "pipe", "pipe"] });

const SWITCHES = 20;
/** A third of the clients idle for up to 9 s, almost as long as nginx promises; each stream lasts ten seconds. */
const MIX: Mix = {
  clients: { post: 350, get: 350, patient: 300, stream: 500 },
  thinkMs: 3000,
  patientMs: [2000, 9000],
  stream: { n: 20, interval: 0.5 },
};

/** What nginx took at one moment. */
interface Usage {
  workers: number;
  /** Of all its processes together, in MB. */
  megabytes: number;
  /** Of the worker that has most. */
  descriptors: number;
}

export interface Clients {
  requests: number;
  failed: Record<string, number>;
  switches: number;
  /** The most of each that was seen. */
  peak: Usage;
  /** Before any client, for comparison. */
  idle: Usage;
}

/** Looks at nginx's processes from the network and process space of its own container. */
async function usage({ nginxContainer }: Scratch): Promise<Usage> {
  const look = `for one in /proc/[0-9]*; do
    grep -qs '[n]ginx: ' $one/cmdline || continue
    echo $(grep -cs 'worker process' $one/cmdline) $(awk '/^Pss:/ { print $2 }' $one/smaps_rollup) $(ls $one/fd | wc -l)
  done`;
  const options = ["--pid", `container:${nginxContainer}`, "--cap-add", "SYS_PTRACE", "debian:trixie-slim"];
  const { stdout } = await quiet`docker run --rm ${options} sh -c ${look}`;
  const rows = stdout
    .trim()
    .split("\n")
    .map((row) => row.split(" ").map(Number));
  return {
    workers: rows.filter(([worker]) => worker).length,
    megabytes: rows.reduce((sum, [, kilobytes = 0]) => sum + kilobytes, 0) / 1024,
    descriptors: Math.max(...rows.map(([, , open = 0]) => open)),
  };
}

const higher = (a: Usage, b: Usage): Usage => ({
  workers: Math.max(a.workers, b.workers),
  megabytes: Math.max(a.megabytes, b.megabytes),
  descriptors: Math.max(a.descriptors, b.descriptors),
});

/** 1,000 keep-alive clients and 500 open streams, through 20 switches. */
export async function manyClients(): Promise<Clients> {
  const stack = await createScratch("clients");
  try {
    Object.assign(stack.env, {
      API_IDLE_SECONDS: "2",
      VERIFY_SECONDS: "1",
      DRAIN_SECONDS: "30",
      HEALTH_RETRIES: "60",
    });
    for (let i = 0; i < 2; i++) {
      const run = await stack.deploy();
      if (run.exitCode !== 0) throw new Error(run.stdall);
    }
    const idle = await usage(stack);
    const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, MIX);
    let [peak, over] = [idle, false];
    const watch = (async () => {
      while (!over) peak = higher(peak, await usage(stack));
    })();
    for (let i = 1; i <= SWITCHES; i++) {
      const run = await stack.rollback();
      if (run.exitCode !== 0) throw new Error(run.stdall);
      const failed = load.shots.filter(({ failure }) => failure).length;
      console.log(
        `clients: ${i} of ${SWITCHES}, ${load.shots.length} requests, ${failed} failed, ${JSON.stringify(peak)}`,
      );
    }
    over = true;
    await watch;
    const shots = await load.stop();
    const failed: Record<string, number> = {};
    for (const { kind, failure } of shots)
      if (failure) failed[`${kind} ${failure}`] = (failed[`${kind} ${failure}`] ?? 0) + 1;
    return { requests: shots.length, failed, switches: SWITCHES, peak, idle };
  } finally {
    await stack.remove();
  }
}

/** The same as a Markdown table. */
export function clientsTable({ requests, failed, switches, peak, idle }: Clients): string {
  const lost = Object.values(failed).reduce((sum, count) => sum + count, 0);
  const kinds = Object.entries(failed).map(([kind, count]) => `${count} ${kind}`);
  return [
    `| 1,000 keep-alive clients and 500 open streams, ${switches} switches | |`,
    "| --- | ---: |",
    `| requests and streams | ${requests.toLocaleString("en")} |`,
    `| **failed** | **${lost}**${lost > 0 ? ` (${kinds.join(", ")})` : ""} |`,
    `| most nginx workers at once (without clients) | ${peak.workers} (${idle.workers}) |`,
    `| most memory of all nginx processes (without clients) | ${peak.megabytes.toFixed(0)} MB (${idle.megabytes.toFixed(0)} MB) |`,
    `| most open files in one worker (limit: 16,384) | ${peak.descriptors.toLocaleString("en")} |`,
  ].join("\n");
}
