import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

/** How long port 8080 may be away here, in ms: the page promises less, but other tests share this machine. */
const BOUND = 3000;

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

interface Place {
  stack: Scratch;
  checkout: string;
  old: string;
  oldPorts: { nginx: string; api: string; auth: string };
}

/** The block of the page whose fence has this word, in the names and ports of this place. */
async function block(name: string, { stack, old, oldPorts }: Place): Promise<string> {
  const page = await readFile(join(ROOT, "docs/moving-in.md"), "utf8");
  const text = page.match(new RegExp(`^\`\`\`\\w+ ${name}\\n([^]*?)^\`\`\``, "m"))?.[1];
  assert.ok(text, `the page has a block ${name}`);
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
      // The service of the compose file keeps its name, the container does not.
      .replace(/(?<!--force-recreate )\bloop-(nginx|api|auth)\b/g, `${old}-$1`)
      .replace(/\bloop-bg\b|\b80\d\d\b/g, (word) => names[word] ?? word)
  );
}

/** Runs a block of the page as an owner would paste it, in the checkout; each line must succeed. */
async function paste(name: string, place: Place): Promise<string> {
  const { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH } = place.stack.env;
  const shell = $({
    quiet: true,
    nothrow: true,
    cwd: place.checkout,
    timeout: "180s",
    stdio: ["ignore", "pipe", "pipe"],
    // Only what makes it short; the rest must come from the settings file.
    env: { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH, VERIFY_SECONDS: "1", HEALTH_INTERVAL: "1" },
  });
  const run = await shell`bash -e -c ${await block(name, place)}`;
  assert.is(run.exitCode, 0, `${name}: ${run.stdall}`);
  return run.stdout;
}

/** A call that is open all through a move: what nginx waits for must not make the port's absence longer. */
function longCall(port: string): () => void {
  const params = { name: "slow", arguments: { seconds: 60 } };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  const head = `POST /mcp HTTP/1.1\r\nHost: loop\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
  const socket = connect(Number(port), "127.0.0.1", () => socket.write(`${head}\r\n\r\n${body}`));
  socket.on("error", () => undefined);
  return () => socket.destroy();
}

/** Asks a port every 10 ms while something is done, and gives the longest time from one good answer to the next. */
async function outage(port: string, act: () => Promise<unknown>): Promise<number> {
  let [last, longest, done]: [number, number, boolean] = [performance.now(), 0, false];
  const ask = async () => {
    const { statusCode, body } = await request(`http://127.0.0.1:${port}/health`, {
      reset: true,
      headersTimeout: 1000,
      bodyTimeout: 1000,
    });
    await body.dump();
    if (statusCode !== 200) return;
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const asking = (async () => {
    const open = new Set<Promise<void>>();
    while (!done) {
      const one: Promise<void> = ask()
        .catch(() => undefined)
        .finally(() => open.delete(one));
      open.add(one);
      await sleep(10);
    }
    await Promise.all(open);
  })();
  try {
    await act();
    await sleep(500);
  } finally {
    done = true;
    await asking;
  }
  return Math.round(Math.max(longest, performance.now() - last));
}

const freshPorts = async (): Promise<Place["oldPorts"]> => {
  const scratch = await createScratch("moving-old");
  await scratch.remove();
  const { env } = scratch;
  return { nginx: env.NGINX_PORT ?? "", api: env.BLUE_PORT ?? "", auth: env.AUTH_PORT ?? "" };
};

/** What an owner has before: one API, one nginx, one auth, from a compose file of their own. */
async function oldCompose({ stack: { folder, env }, old, oldPorts }: Place): Promise<string> {
  const home = join(folder, "old");
  await mkdir(home);
  await writeFile(join(home, "nginx.conf"), OLD_NGINX);
  const volumes = [`${env.VAULT_PATH}:/vault`, `${env.OAUTH_DATA_PATH}:/oauth-data`];
  const common = { restart: "always", volumes };
  const services = {
    "loop-api": {
      ...common,
      container_name: `${old}-api`,
      build: join(ROOT, "examples/loop-api"),
      ports: [`127.0.0.1:${oldPorts.api}:8081`],
    },
    "loop-auth": {
      ...common,
      container_name: `${old}-auth`,
      build: join(ROOT, "examples/loop-auth"),
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

const moving = suite<{ place: Place; file: string }>("moving in");
moving.before(async (context) => {
  const stack = await createScratch("moving");
  const checkout = join(stack.folder, "checkout");
  for (const part of ["lib", "scripts", "nginx", "examples", "docker-compose.blue-green.yml", "package.json"])
    await cp(join(ROOT, part), join(checkout, part), {
      recursive: true,
      filter: (file) => !/(active-upstream|probe-key)\.conf$/.test(file),
    });
  await symlink(join(ROOT, "node_modules"), join(checkout, "node_modules"));
  const place = { stack, checkout, old: `${stack.project}-old`, oldPorts: await freshPorts() };
  Object.assign(context, { place, file: await oldCompose(place) });
  const up = await stack.docker("compose", "-f", context.file, "up", "-d", "--build");
  assert.is(up.exitCode, 0, up.stdall);
});
moving.after(async ({ place: { stack }, file }) => {
  await stack.docker("compose", "-f", file, "down", "--timeout", "1", "--rmi", "local", "--volumes");
  await stack.remove();
});

moving("in, a release, back and out, with the page's commands", async ({ place }) => {
  const { stack, checkout, oldPorts, old } = place;
  const seen = async (port: string) => {
    const { headers, body } = await request(`http://127.0.0.1:${port}/health`, { reset: true });
    const { status, color } = (await body.json()) as { status: string; color: string };
    return [status, color, headers["x-loop-color"]];
  };
  await waitFor("the old API answers", async () => (await seen(oldPorts.nginx))[0] === "healthy", 60);
  assert.match(await paste("check", place), new RegExp(`/${old}-api running always ${old}\\n`));
  await writeFile(join(checkout, ".env.blue-green"), await block("settings", place));

  const beside = await outage(oldPorts.nginx, async () => {
    assert.match(await paste("build", place), /X-Loop-Color: green/);
  });
  assert.ok(beside < 1000, `while it is built beside, port 8080 was away for ${beside} ms`);
  assert.equal(await seen(oldPorts.nginx), ["healthy", "none", undefined]);

  const hangUp = [longCall(oldPorts.nginx)];
  const inwards = await outage(oldPorts.nginx, () => paste("move", place));
  assert.equal(await seen(oldPorts.nginx), ["healthy", "green", "green"]);
  await paste("rest", place);
  assert.is(await stack.field(`${old}-api`, "{{.State.Status}}"), "exited");
  assert.equal(await seen(oldPorts.nginx), ["healthy", "green", "green"]);

  const release = await outage(oldPorts.nginx, async () => {
    const line = (await block("build", place)).split("\n")[0] ?? "";
    const { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH } = stack.env;
    const env = { PATH, HOME, VAULT_PATH, OAUTH_DATA_PATH, VERIFY_SECONDS: "1", HEALTH_INTERVAL: "1" };
    const run = await $({ quiet: true, nothrow: true, cwd: checkout, env, timeout: "180s" })`bash -c ${line}`;
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, "Released green → blue");
  });
  assert.equal(await seen(oldPorts.nginx), ["healthy", "blue", "blue"]);

  hangUp.push(longCall(oldPorts.nginx));
  const backwards = await outage(oldPorts.nginx, () => paste("back", place));
  for (const end of hangUp) end();
  assert.equal(await seen(oldPorts.nginx), ["healthy", "none", undefined]);
  await paste("out", place);
  assert.is(await stack.field(`${stack.project}-nginx`, "{{.State.Status}}"), "absent");
  assert.equal(await seen(oldPorts.nginx), ["healthy", "none", undefined]);

  console.log(
    `\nport 8080 away, in ms: ${inwards} in, ${backwards} back; longest gap ${beside} beside, ${release} release`,
  );
  assert.ok(inwards < BOUND, `moving in: ${inwards} ms`);
  assert.ok(backwards < BOUND, `going back: ${backwards} ms`);
});
moving.run();
