import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import * as assert from "uvu/assert";
import { startLoad } from "../bench/testbed/load.ts";
import { rewrite } from "../bench/testbed/rewrite.ts";
import { CONNECTION_LINES, createScratch, type Scratch } from "../bench/testbed/scratch.ts";

/** nginx's file with the connection settings of both colors. */
const FILE = "nginx/api-upstreams.conf";

/** Makes the next release of a stack run uvicorn with these arguments. `overlay` adds more services to the compose overlay. */
export async function setApi(stack: Scratch, uvicorn: string, overlay = ""): Promise<void> {
  const start = `import uvicorn; uvicorn.run('api.main:app', host='0.0.0.0', port=8081, access_log=False, ${uvicorn})`;
  const command = JSON.stringify(["python3", "-c", start]);
  await writeFile(
    join(stack.folder, "connections.yml"),
    `services:\n  loop-api-blue: &api\n    command: ${command}\n  loop-api-green: *api\n${overlay}`,
  );
}

/** Creates a stack with a first release, whose API runs uvicorn with these arguments. */
export async function createReleasedWithApi(
  name: string,
  uvicorn: string,
  env: Record<string, string>,
  overlay = "",
): Promise<Scratch> {
  const stack = await createScratch(name);
  await setApi(stack, uvicorn, overlay);
  Object.assign(stack.env, { API_IDLE_SECONDS: "2" }, env, {
    COMPOSE_FILE: `${stack.env.COMPOSE_FILE}:${join(stack.folder, "connections.yml")}`,
    VERIFY_SECONDS: "0",
  });
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  return stack;
}

/** Replaces the connection settings of both colors by this line, and reloads nginx. */
export async function reloadConnections(stack: Scratch, line: string): Promise<void> {
  await rewrite(join(stack.folder, FILE), CONNECTION_LINES, line);
  const reload = "nginx -t -q -c /etc/nginx/nginx-blue-green.conf && kill -HUP 1";
  const { exitCode, stderr } = await stack.docker("exec", stack.nginxContainer, "sh", "-c", reload);
  assert.is(exitCode, 0, stderr);
  await sleep(500); // old workers keep listening for 100 ms
}

/**
 * Sends bursts of POSTs with pauses about as long as the API's idle timeout, so that each burst meets connections that the
 * API is just closing. Ends after `posts` POSTs or at the first loss. Returns how many were sent, and the losses.
 */
export async function sendBursts(stack: Scratch, clients: number, idleMs: number, posts: number) {
  const agents = Array.from(
    { length: clients },
    () => new Agent({ connections: 1, keepAliveTimeout: 10_000 }),
  );
  const origin = `http://127.0.0.1:${stack.env.NGINX_PORT}`;
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" });
  const post = async (agent: Agent): Promise<string | undefined> => {
    try {
      const response = await agent.request({
        origin,
        path: "/mcp",
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      await response.body.dump();
      return response.statusCode === 200 ? undefined : `HTTP ${response.statusCode}`;
    } catch (error) {
      return String(error);
    }
  };
  const lost: string[] = [];
  let sent = 0;
  while (sent < posts && lost.length === 0) {
    const failures = await Promise.all(agents.map(post));
    lost.push(...failures.filter((failure) => failure !== undefined));
    sent += failures.length;
    await sleep(idleMs * (0.8 + Math.random() * 0.4));
  }
  await Promise.all(agents.map((agent) => agent.close()));
  return { sent, lost };
}

/** Creates a stack with the default settings, whose API has gunicorn's idle timeout. */
const createReleasedWithGunicorn = (): Promise<Scratch> =>
  createReleasedWithApi("idle", "timeout_keep_alive=2", {});

/** Sends `posts` POSTs whose pauses are about as long as the API's idle timeout. None may be lost. */
export async function expectNoPostLost(posts: number): Promise<void> {
  const stack = await createReleasedWithGunicorn();
  try {
    const { sent, lost } = await sendBursts(stack, 800, 2000, posts);
    const { stderr } = await stack.docker("logs", stack.nginxContainer);
    assert.equal(lost, [], `of ${sent}\n${stderr.slice(-2000)}`);
  } finally {
    await stack.remove();
  }
}

/** Sends such POSTs while nginx keeps idle connections open longer than the API does, 100,000 at most. One must be lost. */
export async function expectPostsLost(): Promise<void> {
  const stack = await createReleasedWithGunicorn();
  try {
    await reloadConnections(stack, "keepalive 512; keepalive_timeout 10s;");
    const { sent, lost } = await sendBursts(stack, 800, 2000, 100_000);
    assert.ok(lost.length > 0, `none of ${sent} was lost, so these bursts would not detect a loss`);
  } finally {
    await stack.remove();
  }
}

const SATURATION = { clients: { post: 16, get: 16 }, thinkMs: 0, patientMs: [0, 0] } as const;

/** Puts a stack under full load until `requests` requests have ended. Returns the failures and their counts. */
export async function saturate(stack: Scratch, requests: number): Promise<Record<string, number>> {
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, SATURATION);
  while (load.shots.length < requests) await sleep(50);
  const failed: Record<string, number> = {};
  for (const { failure } of await load.stop()) if (failure) failed[failure] = (failed[failure] ?? 0) + 1;
  return failed;
}
