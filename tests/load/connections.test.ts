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

connections("the committed file is the one for the default of API_IDLE_SECONDS", async () => {
  assert.is(await readFile(join(ROOT, FILE), "utf8"), renderConnections({ apiIdleSeconds: 2 }));
  assert.match(renderConnections({ apiIdleSeconds: 0.5 }), "keepalive_timeout 250ms;");
  assert.is(renderConnections({ apiIdleSeconds: 60 }), renderConnections({ apiIdleSeconds: 2 }));
  assert.match(renderConnections({ apiIdleSeconds: 0 }), /^keepalive 0;\n$/m);
});

/** A stack whose API runs uvicorn with these arguments, and whose services have what else the overlay says. */
async function withApi(name: string, uvicorn: string, env: Record<string, string>, overlay = "") {
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

/** The same, released. */
async function released(...how: Parameters<typeof withApi>): Promise<Scratch> {
  const stack = await withApi(...how);
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  return stack;
}

/** Gives nginx's container these local ports. */
const ports = (range: string): string =>
  `  loop-nginx:\n    sysctls: { net.ipv4.ip_local_port_range: "${range}" }\n`;

/** Has nginx read another file about its connections. */
async function reconnect(stack: Scratch, content: string): Promise<void> {
  await writeFile(join(stack.folder, FILE), content);
  const reload = "nginx -t -q -c /etc/nginx/nginx-blue-green.conf && kill -HUP 1";
  const { exitCode, stderr } = await stack.docker("exec", stack.nginxContainer, "sh", "-c", reload);
  assert.is(exitCode, 0, stderr);
  await sleep(500); // old workers go on listening for 100 ms
}

/**
 * Clients that all POST at once, then all pause for about as long as the API keeps idle connections: each burst finds
 * connections that the API is just then closing. Ends after so many POSTs, or at the first loss; gives both counts.
 */
async function straddle(stack: Scratch, clients: number, idleMs: number, posts: number) {
  const agents = Array.from(
    { length: clients },
    () => new Agent({ connections: 1, keepAliveTimeout: 10_000 }),
  );
  const origin = `http://127.0.0.1:${stack.env.NGINX_PORT}`;
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" });
  const post = async (agent: Agent): Promise<string | undefined> => {
    try {
      const answer = await agent.request({
        origin,
        path: "/mcp",
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      await answer.body.dump();
      return answer.statusCode === 200 ? undefined : `HTTP ${answer.statusCode}`;
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
  "50,000 POSTs whose pauses straddle the API's idle timeout: none is lost; with a longer timeout in nginx, some are",
  async () => {
    // The default, with an API that keeps idle connections for as long as gunicorn does.
    const stack = await released("idle", "timeout_keep_alive=2", {});
    try {
      const { sent, lost } = await straddle(stack, 800, 2000, 50_000);
      const { stderr } = await stack.docker("logs", stack.nginxContainer);
      assert.equal(lost, [], `of ${sent}\n${stderr.slice(-2000)}`);
      await reconnect(stack, "keepalive 512;\nkeepalive_timeout 10s;\n");
      const control = await straddle(stack, 800, 2000, 100_000);
      assert.ok(control.lost.length > 0, `${control.sent} and none lost: this load would not notice a loss`);
    } finally {
      await stack.remove();
    }
  },
);

const SATURATION = { clients: { post: 16, get: 16 }, thinkMs: 0, patientMs: [0, 0] } as const;

/** Loads a stack until there are so many responses; gives what failed, with how often. */
async function saturate(stack: Scratch, requests: number): Promise<Record<string, number>> {
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, SATURATION);
  while (load.shots.length < requests) await sleep(50);
  const failed: Record<string, number> = {};
  for (const { failure } of await load.stop()) if (failure) failed[failure] = (failed[failure] ?? 0) + 1;
  return failed;
}

connections(
  "far more requests than nginx has local ports: none fails; without reuse of connections, many do",
  async () => {
    // A thousand ports instead of 28,232, and so the end of them within seconds instead of a minute.
    const stack = await released("ports", "timeout_keep_alive=5", {}, ports("20000 20999"));
    try {
      assert.equal(await saturate(stack, 10_000), {});
      const bursts = await straddle(stack, 300, 50, 20_000);
      assert.equal(bursts.lost, [], `of ${bursts.sent}, in bursts of 300`);
      await reconnect(stack, renderConnections({ apiIdleSeconds: 0 }));
      assert.ok(((await saturate(stack, 4000))["HTTP 502"] ?? 0) > 0, "nginx had ports enough");
    } finally {
      await stack.remove();
    }
  },
);

for (const [how, uvicorn, env] of [
  ["says so", "timeout_keep_alive=5, headers=[('connection', 'close')]", {}],
  ["does not say so, with API_IDLE_SECONDS=0", "timeout_keep_alive=0", { API_IDLE_SECONDS: "0" }],
] as const) {
  connections(`an API that closes after each response and ${how}: no request is lost`, async () => {
    const stack = await released("closing", uvicorn, env);
    try {
      assert.equal(await saturate(stack, 5000), {});
    } finally {
      await stack.remove();
    }
  });
}

connections("an API that closes sooner than API_IDLE_SECONDS says, in silence, is not released", async () => {
  const stack = await withApi("silent", "timeout_keep_alive=0", {});
  try {
    const run = await stack.deploy();
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "The API closes idle connections sooner than API_IDLE_SECONDS=2 says");
    assert.equal(await stack.running(), []);
  } finally {
    await stack.remove();
  }
});
connections.run();
