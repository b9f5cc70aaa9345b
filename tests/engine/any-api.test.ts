import { cp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, WebSocket } from "undici";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import {
  createReleasedScratch,
  createScratch,
  EXAMPLE_AUTH,
  type Scratch,
  waitFor,
} from "../../bench/testbed/scratch.ts";
import { FIRST_API, hasAuth } from "../../lib/api.ts";
import { readApis } from "../../lib/engine/apis.ts";
import { renderUpstreams } from "../../lib/nginx/upstreams.ts";
import { listReleases } from "../../lib/release/releases.ts";
import { readStatus } from "../../lib/release/status.ts";
import { type Context, readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings, ROOT } from "../../lib/settings.ts";
import { pollUntil } from "../../lib/util/poll.ts";
import { suite } from "../suite.ts";

/** The settings of examples/node-api. */
const NODE = {
  LOOP_API_CONTEXT: join(ROOT, "examples/node-api"),
  API_PORT: "3000",
  HEALTH_PATH: "/up",
  HEALTH_EXPECT: '{"ok":true}',
};

/** The same, and the API does the authorization itself. */
const OWN_AUTH = { ...NODE, AUTH: "off", API_IDLE_SECONDS: "0.8" };

const LOAD_PORTS = "load the ports of the APIs into nginx";

/** For what changes nothing: the status, the list of releases. */
const contextOf = (stack: Scratch, env: Record<string, string> = {}): Context =>
  readOnlyContext(loadSettings({ ...stack.env, ...env }, "/nonexistent", "nothing"), createLog());

/** Copies the Node example with another version number. Returns its settings. */
async function nodeVersion({ folder }: Scratch, version: string): Promise<typeof NODE> {
  const context = join(folder, `node-api-${version}`);
  await cp(NODE.LOOP_API_CONTEXT, context, { recursive: true });
  const server = join(context, "server.mjs");
  const text = await readFile(server, "utf8");
  await writeFile(server, text.replace('VERSION = "1.0.0"', `VERSION = "${version}"`));
  return { ...NODE, LOOP_API_CONTEXT: context };
}

/** Clients that repeat GET / on kept-alive connections, about 150 times a second in all: a path that both APIs answer, if only with 404. `stop` returns what was lost. */
function startGets({ env }: Scratch): { count(): number; stop(): Promise<string[]> } {
  const lost: string[] = [];
  let [count, stopped] = [0, false];
  const client = async (): Promise<void> => {
    const agent = new Agent({ connections: 1, headersTimeout: 10_000 });
    for (; !stopped; await sleep(25)) {
      try {
        const origin = `http://127.0.0.1:${env.NGINX_PORT}`;
        const { statusCode, body } = await agent.request({ origin, path: "/", method: "GET" });
        await body.text();
        if (![200, 404].includes(statusCode)) lost.push(`HTTP ${statusCode}`);
      } catch (error) {
        lost.push(String(error));
      }
      count++;
    }
    await agent.close();
  };
  const running = Array.from({ length: 4 }, client);
  return {
    count: () => count,
    stop: async () => {
      stopped = true;
      await Promise.all(running);
      return lost;
    },
  };
}

/** A WebSocket to the clock of the Node example. */
interface Clock {
  /** The versions that its messages named. */
  versions: string[];
  close(): void;
  /** The status of its close; 1006 for a connection that was cut. */
  closed: Promise<number>;
}

async function openClock({ env }: Scratch): Promise<Clock> {
  const socket = new WebSocket(`ws://127.0.0.1:${env.NGINX_PORT}/clock`);
  const versions: string[] = [];
  const closed = new Promise<number>((resolve) =>
    socket.addEventListener("close", ({ code }) => resolve(code)),
  );
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("error", () => reject(new Error("the WebSocket was not opened")));
    socket.addEventListener("message", ({ data }) => {
      versions.push(String(data).split(" ")[0] ?? "");
      resolve();
    });
  });
  return { versions, close: () => socket.close(1000), closed };
}

const anyApi = suite<{ stack: Scratch }>("any API");
anyApi.before(async (context) => {
  context.stack = await createReleasedScratch("any-api", { LOOP_AUTH_CONTEXT: EXAMPLE_AUTH });
});
anyApi.after(({ stack }) => stack.remove());

// tests/engine/releases releases APIs with other ports from their images.
anyApi(
  "another API is released over the example, by settings alone, without a lost request",
  async ({ stack }) => {
    const load = startGets(stack);
    const run = await stack.deploy([], OWN_AUTH);
    const during = load.count();
    const went = await pollUntil(10, async () => load.count() >= during + 200);
    const lost = await load.stop();
    assert.is(run.exitCode, 0, run.stdall);
    assert.equal(lost, []);
    assert.ok(during > 100 && went, `${during} requests during the release, ${load.count()} in all`);
    assert.match(run.stdout, LOAD_PORTS);
    assert.not.match(run.stdall, "docker rm --force", "the other color still needs auth");
    const { status, color, body } = await stack.get("/up");
    assert.equal([status, color, body], [200, "green", '{"ok":true,"version":"1.0.0"}']);
    // The settings are still those of the example: status asks a color as it was released.
    const { serving, colors, drift } = await readStatus(contextOf(stack));
    assert.equal([serving, colors.green.health, drift], ["green", "healthy", []]);
  },
);

anyApi("runs may ask nginx for any path of a color; without the key there is none", async ({ stack }) => {
  assert.is((await stack.get("/_loop/green/up")).status, 200);
  assert.match((await stack.get("/_loop/green/")).body, '"version":"1.0.0"');
  assert.is((await stack.get("/_loop/green/no/such/path")).status, 404);
  for (const path of ["/_loop/green/up", "/_loop/green/", "/_loop/blue/health"]) {
    const response = await fetch(`http://127.0.0.1:${stack.env.NGINX_PORT}${path}`);
    assert.is(response.status, 404, path);
    assert.not.match(await response.text(), "version", path);
  }
});

/** The lines of a color's upstream that nginx has loaded. */
const upstreamOf = async ({ docker, nginxContainer }: Scratch, color: string): Promise<string> => {
  const lines = `/^upstream loop_api_${color} /,/^}/p`;
  return (await docker("exec", nginxContainer, "sed", "-n", lines, "/etc/nginx/api-upstreams.conf")).stdout;
};

/** Settings that do not fit the Node API, which has no auth. */
const WRONG = { ...OWN_AUTH, HEALTH_EXPECT: '{"ok":true,"version":"9"}', HEALTH_RETRIES: "10" };

/** The path of the metadata that auth answers; with AUTH=off, the API. */
const METADATA = "/.well-known/oauth-authorization-server";

anyApi("AUTH and API_IDLE_SECONDS belong to the color that was released with them", async ({ stack }) => {
  assert.match((await stack.get(METADATA)).body, '"version":"1.0.0"');
  const post = await fetch(`http://127.0.0.1:${stack.env.NGINX_PORT}/token`, { method: "POST", body: "x" });
  assert.match(await post.text(), '"version":"1.0.0"', "a small body reaches the API, too");
  assert.match(await upstreamOf(stack, "green"), "keepalive_timeout 400ms;");
  assert.match(await upstreamOf(stack, "blue"), "keepalive_timeout 200ms;");
  const { created } = JSON.parse(await readFile(join(stack.stateDir, "apis.json"), "utf8"));
  assert.is(created.green, await stack.field(`${stack.project}-api-green`, "{{.Image}}"));
});

anyApi(
  "a failed health check says what differs; a release that fails changes nothing for the other color",
  async ({ stack }) => {
    const failed = await stack.deploy([], WRONG);
    assert.is(failed.exitCode, 1, failed.stdall);
    assert.match(failed.stdall, LOAD_PORTS);
    assert.match(failed.stderr, 'version is "1.0.0", expected "9"');
    assert.match(failed.stderr, "set HEALTH_EXPECT to it");
    const metadata = await stack.get(METADATA);
    assert.is(metadata.color, "green");
    assert.match(metadata.body, '"version":"1.0.0"');
    assert.match(await upstreamOf(stack, "green"), "keepalive_timeout 400ms;");
  },
);

anyApi(
  "after a failed release, a rollback returns to the earlier API and its auth, whatever the settings say now",
  async ({ stack }) => {
    await stack.docker("stop", "--time", "1", `${stack.project}-auth`);
    const back = await stack.rollback([], WRONG);
    assert.is(back.exitCode, 0, back.stdall);
    assert.match(back.stdall, `${stack.project}-auth does not run: starting it`);
    const { status, color } = await stack.get("/health");
    assert.equal([status, color], [200, "blue"]);
    const fromAuth = await stack.get(METADATA);
    assert.is(fromAuth.status, 200);
    assert.not.match(fromAuth.body, '"version"');

    const record = join(stack.stateDir, "apis.json");
    await rename(record, `${record}.away`); // as right after an upgrade
    const { serving, colors, drift } = await readStatus(contextOf(stack, NODE));
    assert.equal([serving, colors.blue.health, drift], ["blue", "healthy", []]);
    const kept = await listReleases(contextOf(stack, NODE));
    assert.is(kept.find(({ serves }) => serves)?.color, "blue");
    const dry = await stack.rollback(["--dry-run"], NODE);
    assert.not.match(dry.stdall, "neither color serves");
    assert.not.match(dry.stdall, LOAD_PORTS);
    assert.not.match(dry.stdall, "write nginx's configuration");
    await rename(`${record}.away`, record);
  },
);

anyApi(
  "the next rollback returns to the other API: its container, which is gone, is recreated for the API of its image",
  async ({ stack }) => {
    await stack.docker("rm", `${stack.project}-api-green`);
    const forth = await stack.rollback();
    assert.is(forth.exitCode, 0, forth.stdall);
    assert.not.match(forth.stdout, LOAD_PORTS, "nginx knows both ports already");
    assert.is((await stack.get("/up")).color, "green");
    assert.match((await stack.get(METADATA)).body, '"version":"1.0.0"');
  },
);

anyApi(
  "the run after one that was killed before it recorded a new container repairs the record and wrong ports in nginx before it relies on them",
  async ({ stack }) => {
    // The example goes to the color that has it on standby.
    const run = startRun(stack, "deploy");
    await run.waitForStep("start blue");
    run.kill("SIGKILL");
    await run.ended;
    const file = join(stack.stateDir, "apis.json");
    const left = JSON.parse(await readFile(file, "utf8"));
    const { green } = left.colors;
    const wrong = { blue: green, green: FIRST_API };
    await writeFile(file, JSON.stringify({ ...left, colors: wrong }));
    await writeFile(join(stack.folder, "nginx/api-upstreams.conf"), renderUpstreams(wrong));
    await stack.docker("exec", stack.nginxContainer, "sh", "-c", "kill -HUP 1");
    await waitFor("nginx has the wrong port", async () => (await stack.get("/up")).status === 502);
    const dry = await stack.rollback(["--dry-run"]);
    assert.is((await stack.get("/up")).status, 502, `a dry run changes nothing: ${dry.stdall}`);

    // A run that recreates nothing: its build fails.
    const failed = await stack.deploy([], { LOOP_API_CONTEXT: stack.folder });
    assert.is(failed.exitCode, 1, failed.stdall);
    assert.match(failed.stderr, "Build failed");
    assert.not.match(failed.stdall, "neither color serves", "it was repaired before the run looked");
    const released = { ...FIRST_API, idleSeconds: Number(stack.env.API_IDLE_SECONDS) };
    assert.equal(readApis({ stateDir: stack.stateDir, api: FIRST_API }), { blue: released, green });
    const { status, color } = await stack.get("/up");
    assert.equal([status, color], [200, "green"], "the serving color goes on");
    assert.equal((await readStatus(contextOf(stack, NODE))).drift, []);
  },
);

anyApi(
  "a WebSocket passes through nginx, and a switch does not cut one that ends within the drain limit",
  async ({ stack }) => {
    const [short, long] = [await openClock(stack), await openClock(stack)];
    const three = { ...(await nodeVersion(stack, "3.0.0")), AUTH: "off", DRAIN_SECONDS: "4" };
    const run = startRun(stack, "deploy", three);
    await run.waitForStep("verify");
    const before = short.versions.length;
    await waitFor("a message after the switch", async () => short.versions.length > before, 3);
    const next = await openClock(stack);
    assert.equal(next.versions, ["3.0.0"], "a new WebSocket reaches the new color");
    next.close();
    assert.is(await next.closed, 1000);
    short.close();
    assert.is(await short.closed, 1000, "the switch has not cut it");
    assert.ok(short.versions.length >= 2 && short.versions.every((version) => version === "1.0.0"));
    const { exitCode, output } = await run.ended;
    assert.is(exitCode, 0, output);
    assert.match(output, "1 request was interrupted at the drain limit");
    assert.not.match(output, "docker rm --force", "the color on standby still needs auth");
    assert.match((await stack.get("/token")).body, '"version":"3.0.0"');
    assert.is(await long.closed, 1006, "it was cut at the drain limit");
    assert.ok(long.versions.every((version) => version === "1.0.0"));
  },
);

anyApi(
  "only a WebSocket is upgraded: nginx would not see the requests of any other protocol",
  async ({ stack }) => {
    const statusFor = (upgrade: string): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const headers = {
          Connection: "Upgrade",
          Upgrade: upgrade,
          "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        };
        const port = Number(stack.env.NGINX_PORT);
        get({ host: "127.0.0.1", port, path: "/clock", headers })
          .on("response", (response) => resolve(response.resume().statusCode))
          .on("upgrade", ({ statusCode }, socket) => {
            socket.destroy();
            resolve(statusCode);
          })
          .on("error", reject);
      });
    assert.is(await statusFor("WebSocket"), 101);
    assert.is(await statusFor("h2c"), 404);
  },
);

anyApi(
  "a rollback to a release with auth starts auth, although neither color has it any more",
  async ({ stack }) => {
    await stack.docker("stop", "--time", "1", `${stack.project}-auth`);
    assert.not.ok(hasAuth(readApis({ stateDir: stack.stateDir, api: FIRST_API })), "a color has auth");
    const back = await stack.rollback(["--to", "2"], OWN_AUTH); // the example, with auth
    assert.is(back.exitCode, 0, back.stdall);
    assert.match(back.stdall, `${stack.project}-auth does not run: starting it`);
    assert.is((await stack.get()).status, 200);
    const { status, body } = await stack.get(METADATA);
    assert.is(status, 200);
    assert.not.match(body, '"version"', "from auth");
  },
);
anyApi.run();

const bare = suite<{ stack: Scratch }>("an API without vault and auth");
bare.before(async (context) => {
  context.stack = await createScratch("bare-api");
  const { stack } = context;
  delete stack.env.ACTIVE_COLOR_FILE;
  Object.assign(stack.env, NODE, { VAULT_PATH: "none", AUTH: "off", LOOP_AUTH_CONTEXT: "/nonexistent" });
});
bare.after(({ stack }) => stack.remove());

bare("the first release creates neither auth nor a folder, and mounts none", async ({ stack }) => {
  await rm(join(stack.folder, "vault"), { recursive: true });
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  assert.not.match(run.stdall, LOAD_PORTS, "nginx started with the port");
  const containers = await stack.docker(
    "ps",
    "-a",
    "--format",
    "{{.Names}}",
    "--filter",
    `name=${stack.project}`,
  );
  assert.equal(containers.stdout.trim().split("\n").sort(), [
    `${stack.project}-api-green`,
    stack.nginxContainer,
  ]);
  const mounts = await stack.field(
    `${stack.project}-api-green`,
    "{{range .Mounts}}{{.Type}}:{{.Source}} {{end}}",
  );
  assert.is(mounts.trim(), "tmpfs: tmpfs:");
  for (const path of ["vault", "oauth"])
    assert.not.ok(await stat(join(stack.folder, path)).catch(() => undefined), path);
  assert.is(await readFile(join(stack.stateDir, ".active-color"), "utf8"), "green\n");
  const { auth, drift } = await readStatus(contextOf(stack));
  assert.equal([auth, drift], ["off", []]);
});

bare("the paths of auth go to the API", async ({ stack }) => {
  for (const path of ["/authorize", "/token", "/register", "/.well-known/x"]) {
    const { status, body } = await stack.get(path);
    assert.equal([status, body], [404, `{"error":"There is no ${path}","version":"1.0.0"}`]);
  }
});
bare.run();
