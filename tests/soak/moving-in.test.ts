import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createScratch, freePort, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

/** The longest allowed outage of port 8080 in ms. Longer than the page says, because this machine may be slow. */
const MAX_OUTAGE_MS = 3000;

const OLD_NGINX = `events {}
http {
  server {
    listen 8080;
    location ~ ^/(authorize|token|register)(/|$) { proxy_pass http://loop-auth:8083; }
    location /.well-known/ { proxy_pass http://loop-auth:8083; }
    location / { proxy_pass http://loop-api:8081; }
  }
}
`;

interface Installation {
  stack: Scratch;
  checkout: string;
  old: string;
  oldPorts: { nginx: string; api: string; auth: string };
}

/** Returns the page's code block with this word on its fence, with the names and ports of this installation. */
async function block(name: string, { stack, old, oldPorts }: Installation): Promise<string> {
  const page = await readFile(join(ROOT, "docs/moving-in.md"), "utf8");
  const text = page.match(new RegExp(`^\`\`\`\\w+ ${name}\\n([^]*?)^\`\`\``, "m"))?.[1];
  assert.ok(text, `the page has no block ${name}`);
  const names: Record<string, string> = {
    "loop-bg": stack.project,
    "8090": stack.env.NGINX_PORT ?? "",
    "8086": stack.env.BLUE_PORT ?? "",
    "8085": stack.env.GREEN_PORT ?? "",
    "8087": stack.env.AUTH_PORT ?? "",
    "8080": oldPorts.nginx,
    "8082": oldPorts.api,
    "8084": oldPorts.auth,
  };
  return (
    text
      // Rename containers, but not services of the compose file.
      .replace(/(?<!--force-recreate )\bloop-(nginx|api|auth)\b/g, `${old}-$1`)
      .replace(/\bloop-bg\b|\b80\d\d\b/g, (word) => names[word] ?? word)
  );
}

/** Runs a block of the page in the checkout, as an owner would paste it. Each line must succeed. */
async function paste(name: string, installation: Installation): Promise<string> {
  const { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH } = installation.stack.env;
  const shell = $({
    quiet: true,
    nothrow: true,
    cwd: installation.checkout,
    timeout: "180s",
    stdio: ["ignore", "pipe", "pipe"],
    // Only shorter times; the rest must come from the settings file.
    env: { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH, VERIFY_SECONDS: "1", HEALTH_INTERVAL: "1" },
  });
  const run = await shell`bash -e -c ${await block(name, installation)}`;
  assert.is(run.exitCode, 0, `${name}: ${run.stdall}`);
  return run.stdout;
}

/** Opens a call that lasts through a whole move: open calls must not make the outage longer. Returns a function that ends it. */
function startLongCall(port: string): () => void {
  const params = { name: "slow", arguments: { seconds: 60 } };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  const head = `POST /mcp HTTP/1.1\r\nHost: loop\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
  const socket = connect(Number(port), "127.0.0.1", () => socket.write(`${head}\r\n\r\n${body}`));
  socket.on("error", () => undefined);
  return () => socket.destroy();
}

/** The ms between two probes: where the outage is measured, and where no probe may fail. */
const [MEASURING_MS, WATCHING_MS] = [10, 50];

/**
 * Probes a port every `intervalMs` during `act`. Returns the longest time between two successful responses, in ms, and how many
 * probes failed. A busy machine makes the first long, but not the second.
 */
async function measureOutage(
  port: string,
  intervalMs: number,
  act: () => Promise<unknown>,
): Promise<{ longest: number; failed: number }> {
  let [last, longest, failed, done]: [number, number, number, boolean] = [performance.now(), 0, 0, false];
  const probe = async () => {
    const { statusCode, body } = await request(`http://127.0.0.1:${port}/health`, {
      reset: true,
      headersTimeout: 10_000,
      bodyTimeout: 10_000,
    });
    await body.dump();
    if (statusCode !== 200) throw new Error(`HTTP ${statusCode}`);
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const probing = (async () => {
    const open = new Set<Promise<void>>();
    while (!done) {
      const one: Promise<void> = probe()
        .catch(() => {
          failed++;
        })
        .finally(() => open.delete(one));
      open.add(one);
      await sleep(intervalMs);
    }
    await Promise.all(open);
  })();
  try {
    await act();
    await sleep(500);
  } finally {
    done = true;
    await probing;
  }
  return { longest: Math.round(Math.max(longest, performance.now() - last)), failed };
}

/** Ports for the old stack, which the new one does not use. */
async function freshPorts(): Promise<Installation["oldPorts"]> {
  const port = async () => String(await freePort());
  return { nginx: await port(), api: await port(), auth: await port() };
}

/** Creates the owner's old compose file: one API, one nginx, one auth. Returns its path. */
async function writeOldComposeFile({ stack: { folder, env }, old, oldPorts }: Installation): Promise<string> {
  const home = join(folder, "old");
  await mkdir(home);
  await writeFile(join(home, "nginx.conf"), OLD_NGINX);
  const volumes = [`${env.VAULT_PATH}:/vault`, `${env.OAUTH_DATA_PATH}:/oauth-data`];
  const common = { restart: "always", volumes };
  const services = {
    "loop-api": {
      ...common,
      container_name: `${old}-api`,
      build: env.LOOP_API_CONTEXT,
      ports: [`127.0.0.1:${oldPorts.api}:8081`],
    },
    "loop-auth": {
      ...common,
      container_name: `${old}-auth`,
      build: env.LOOP_AUTH_CONTEXT,
      environment: { OAUTH_DATA_PATH: "/oauth-data" },
      ports: [`127.0.0.1:${oldPorts.auth}:8083`],
    },
    "loop-nginx": {
      restart: "always",
      container_name: `${old}-nginx`,
      image: "nginx:1.30",
      ports: [`${oldPorts.nginx}:8080`],
      volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro"],
      depends_on: ["loop-api", "loop-auth"],
    },
  };
  const file = join(home, "docker-compose.yml");
  await writeFile(file, JSON.stringify({ name: old, services })); // JSON is YAML
  return file;
}

/** `endCalls` ends the calls that the test has opened. */
const moving = suite<{ installation: Installation; file: string; endCalls: (() => void)[] }>("moving in");
moving.before(async (context) => {
  context.endCalls = [];
  const stack = await createScratch("moving");
  const checkout = join(stack.folder, "checkout");
  for (const part of ["lib", "scripts", "nginx", "examples", "docker-compose.blue-green.yml", "package.json"])
    await cp(join(ROOT, part), join(checkout, part), {
      recursive: true,
      filter: (file) => !/(active-upstream|probe-key)\.conf$/.test(file),
    });
  // In the place of the examples: those of test runs, which start in a fraction of the CPU time.
  for (const [name, context] of [
    ["loop-api", stack.env.LOOP_API_CONTEXT],
    ["loop-auth", stack.env.LOOP_AUTH_CONTEXT],
  ])
    await cp(context ?? "", join(checkout, "examples", name ?? ""), { recursive: true });
  await symlink(join(ROOT, "node_modules"), join(checkout, "node_modules"));
  const installation = { stack, checkout, old: `${stack.project}-old`, oldPorts: await freshPorts() };
  Object.assign(context, { installation, file: await writeOldComposeFile(installation) });
  const up = await stack.docker("compose", "-f", context.file, "up", "-d", "--build");
  assert.is(up.exitCode, 0, up.stdall);
});
moving.after(async ({ installation: { stack }, file, endCalls }) => {
  for (const end of endCalls) end();
  await stack.docker("compose", "-f", file, "down", "--timeout", "1", "--rmi", "local", "--volumes");
  await stack.remove();
});

moving("the commands of the page move in, release, go back and remove the tool", async (context) => {
  const { installation, endCalls } = context;
  const { stack, checkout, oldPorts, old } = installation;
  const observe = async (port: string) => {
    const { headers, body } = await request(`http://127.0.0.1:${port}/health`, { reset: true });
    const { status, color } = (await body.json()) as { status: string; color: string };
    return [status, color, headers["x-loop-color"]];
  };
  await waitFor("the old API answers", async () => (await observe(oldPorts.nginx))[0] === "healthy", 60);
  assert.match(await paste("check", installation), new RegExp(`/${old}-api running always ${old}\\n`));
  await writeFile(join(checkout, ".env.blue-green"), await block("settings", installation));

  const building = await measureOutage(oldPorts.nginx, WATCHING_MS, async () => {
    assert.match(await paste("build", installation), /X-Loop-Color: green/);
  });
  assert.is(building.failed, 0, "requests failed during the build");
  assert.equal(await observe(oldPorts.nginx), ["healthy", "none", undefined]);

  endCalls.push(startLongCall(oldPorts.nginx));
  const movingIn = await measureOutage(oldPorts.nginx, MEASURING_MS, () => paste("move", installation));
  assert.equal(await observe(oldPorts.nginx), ["healthy", "green", "green"]);
  await paste("rest", installation);
  assert.is(await stack.field(`${old}-api`, "{{.State.Status}}"), "exited");
  assert.equal(await observe(oldPorts.nginx), ["healthy", "green", "green"]);

  const release = await measureOutage(oldPorts.nginx, WATCHING_MS, async () => {
    const line = (await block("build", installation)).split("\n")[0] ?? "";
    const { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH } = stack.env;
    const env = { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH, VERIFY_SECONDS: "1", HEALTH_INTERVAL: "1" };
    const run = await $({ quiet: true, nothrow: true, cwd: checkout, env, timeout: "180s" })`bash -c ${line}`;
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, "Released green → blue");
  });
  assert.equal(await observe(oldPorts.nginx), ["healthy", "blue", "blue"]);

  endCalls.push(startLongCall(oldPorts.nginx));
  const goingBack = await measureOutage(oldPorts.nginx, MEASURING_MS, () => paste("back", installation));
  for (const end of endCalls.splice(0)) end();
  assert.equal(await observe(oldPorts.nginx), ["healthy", "none", undefined]);
  await paste("out", installation);
  assert.is(await stack.field(`${stack.project}-nginx`, "{{.State.Status}}"), "absent");
  assert.is(
    (await stack.docker("images", "--quiet", `${stack.project}-api`)).stdout,
    "",
    "images of releases",
  );
  assert.equal(await observe(oldPorts.nginx), ["healthy", "none", undefined]);

  console.log(
    `\nport 8080 down, in ms: ${movingIn.longest} moving in, ${goingBack.longest} going back; longest gap: ${building.longest} building, ${release.longest} release`,
  );
  assert.is(release.failed, 0, "requests failed during the release");
  assert.ok(movingIn.longest < MAX_OUTAGE_MS, `moving in: ${movingIn.longest} ms`);
  assert.ok(goingBack.longest < MAX_OUTAGE_MS, `going back: ${goingBack.longest} ms`);
});
moving.run();
