import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import * as assert from "uvu/assert";
import { startLoad } from "../../bench/testbed/load.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { renderConnections } from "../../lib/nginx/connections.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const connections = suite("connections to the API");
const FILE = "nginx/api-connections.conf";

connections("the committed file matches the default of API_IDLE_SECONDS", async () => {
  assert.is(await readFile(join(ROOT, FILE), "utf8"), renderConnections({ apiIdleSeconds: 2 }));
  assert.match(renderConnections({ apiIdleSeconds: 0.5 }), "keepalive_timeout 250ms;");
  assert.is(renderConnections({ apiIdleSeconds: 60 }), renderConnections({ apiIdleSeconds: 2 }));
  assert.match(renderConnections({ apiIdleSeconds: 0 }), /^keepalive 0;\n$/m);
});

/** Creates a stack whose API runs uvicorn with these arguments. `overlay` adds more services to the compose overlay. */
async function createWithApi(name: string, uvicorn: string, env: Record<string, string>, overlay = "") {
  const stack = await createScratch(name);
  const start = `import uvicorn; uvicorn.run('api.main:app', host='0.0.0.0', port=8081, access_log=False, ${uvicorn})`;
  const command = JSON.stringify(["python3", "-c", start]);
  const file = join(stack.folder, "connections.yml");
  await writeFile(
    file,
    `services:\n  loop-api-blue: &api\n    command: ${command}\n  loop-api-green: *api\n${overlay}`,
  );
  Object.assign(stack.env, { API_IDLE_SECONDS: "2" }, env, {
    COMPOSE_FILE: `${stack.env.COMPOSE_FILE}:${file}`,
    VERIFY_SECONDS: "0",
  });
  return stack;
}

/** The same, with a first release. */
async function createReleasedWithApi(...args: Parameters<typeof createWithApi>): Promise<Scratch> {
  const stack = await createWithApi(...args);
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  return stack;
}

/** A compose overlay that limits nginx's container to this range of local ports. */
const localPorts = (range: string): string =>
  `  loop-nginx:\n    sysctls: { net.ipv4.ip_local_port_range: "${range}" }\n`;

/** Replaces nginx's file with the connection settings and reloads nginx. */
async function reloadConnections(stack: Scratch, content: string): Promise<void> {
  await writeFile(join(stack.folder, FILE), content);
  const reload = "nginx -t -q -c /etc/nginx/nginx-blue-green.conf && kill -HUP 1";
  const { exitCode, stderr } = await stack.docker("exec", stack.nginxContainer, "sh", "-c", reload);
  assert.is(exitCode, 0, stderr);
  await sleep(500); // old workers keep listening for 100 ms
}

/**
 * Sends bursts of POSTs with pauses about as long as the API's idle timeout, so that each burst meets connections that the
 * API is just closing. Ends after `posts` POSTs or at the first loss. Returns how many were sent, and the losses.
 */
async function sendBursts(stack: Scratch, clients: number, idleMs: number, posts: number) {
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

connections(
  "no POST is lost if pauses are about as long as the API's idle timeout; with a longer timeout in nginx, some are",
  async () => {
    // The default, with an API that has gunicorn's idle timeout.
    const stack = await createReleasedWithApi("idle", "timeout_keep_alive=2", {});
    try {
      const { sent, lost } = await sendBursts(stack, 800, 2000, 50_000);
      const { stderr } = await stack.docker("logs", stack.nginxContainer);
      assert.equal(lost, [], `of ${sent}\n${stderr.slice(-2000)}`);
      await reloadConnections(stack, "keepalive 512;\nkeepalive_timeout 10s;\n");
      const control = await sendBursts(stack, 800, 2000, 100_000);
      assert.ok(
        control.lost.length > 0,
        `none of ${control.sent} was lost, so this load would not detect a loss`,
      );
    } finally {
      await stack.remove();
    }
  },
);

const SATURATION = { clients: { post: 16, get: 16 }, thinkMs: 0, patientMs: [0, 0] } as const;

/** Loads a stack until `requests` requests have ended. Returns the failures and their counts. */
async function saturate(stack: Scratch, requests: number): Promise<Record<string, number>> {
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, SATURATION);
  while (load.shots.length < requests) await sleep(50);
  const failed: Record<string, number> = {};
  for (const { failure } of await load.stop()) if (failure) failed[failure] = (failed[failure] ?? 0) + 1;
  return failed;
}

connections(
  "no request fails if there are far more than nginx has local ports; without connection reuse, many do",
  async () => {
    // With 1,000 ports instead of 28,232, they run out within seconds instead of a minute.
    const stack = await createReleasedWithApi("ports", "timeout_keep_alive=5", {}, localPorts("20000 20999"));
    try {
      assert.equal(await saturate(stack, 10_000), {});
      const bursts = await sendBursts(stack, 300, 50, 20_000);
      assert.equal(bursts.lost, [], `of ${bursts.sent}, in bursts of 300`);
      await reloadConnections(stack, renderConnections({ apiIdleSeconds: 0 }));
      assert.ok(((await saturate(stack, 4000))["HTTP 502"] ?? 0) > 0, "nginx had enough ports");
    } finally {
      await stack.remove();
    }
  },
);

for (const [how, uvicorn, env] of [
  ["announces it", "timeout_keep_alive=5, headers=[('connection', 'close')]", {}],
  ["does not, with API_IDLE_SECONDS=0", "timeout_keep_alive=0", { API_IDLE_SECONDS: "0" }],
] as const) {
  connections(`no request to an API is lost that closes after each response and ${how}`, async () => {
    const stack = await createReleasedWithApi("closing", uvicorn, env);
    try {
      assert.equal(await saturate(stack, 5000), {});
    } finally {
      await stack.remove();
    }
  });
}

connections(
  "an API that closes idle connections unannounced before API_IDLE_SECONDS is not released",
  async () => {
    const stack = await createWithApi("silent", "timeout_keep_alive=0", {});
    try {
      const run = await stack.deploy();
      assert.is(run.exitCode, 1, run.stdall);
      assert.match(run.stderr, "The API closes idle connections sooner than API_IDLE_SECONDS=2 says");
      assert.equal(await stack.running(), []);
    } finally {
      await stack.remove();
    }
  },
);
connections.run();
