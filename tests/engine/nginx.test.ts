import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { addVaultFile, createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { readHistory } from "../../lib/run/history.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

const nginx = suite<{ stack: Scratch; url: string }>("nginx");
nginx.before(async (context) => {
  context.stack = await createScratch("nginx");
  await addVaultFile(context.stack); // containers made by hand, and an empty vault: that is one that is not mounted
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
nginx.after(({ stack }) => stack.remove());

const serves = (stack: Scratch, color: string) => async () => {
  const front = await stack.get();
  return front.status === 200 && front.color === color && JSON.parse(front.body).color === color;
};

nginx(
  "serves blue after a plain `docker compose up -d`, and a release goes on from there",
  async ({ stack }) => {
    const up = await stack.compose("up", "-d");
    assert.is(up.exitCode, 0, up.stdall);
    await waitFor("blue serves", serves(stack, "blue"));
    assert.equal(await stack.running(), ["blue"]);
    const run = await stack.deploy();
    assert.is(run.exitCode, 0, run.stdall);
    assert.ok(await serves(stack, "green")());
    assert.equal(await stack.running(), ["green"]);
  },
);

nginx("comes back by itself when its process dies after a release", async ({ stack }) => {
  process.kill(Number(await stack.field(stack.nginxContainer, "{{.State.Pid}}")), "SIGKILL");
  await waitFor(
    "nginx was restarted",
    async () => (await stack.field(stack.nginxContainer, "{{.RestartCount}}")) === "1",
  );
  await waitFor("green serves", serves(stack, "green"));
});

nginx(
  "gives new connections to the new workers while the old ones still listen, for 100 ms",
  async ({ stack }) => {
    const master = Number(await stack.field(stack.nginxContainer, "{{.State.Pid}}"));
    const times: number[] = [];
    for (const color of ["blue", "green", "blue", "green"]) {
      await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), `${color}-upstream.conf`);
      const since = performance.now();
      process.kill(master, "SIGHUP");
      const isNew = async () => (await stack.get("/_loop/color")).color === color;
      while (!(await isNew()) && performance.now() - since < 5000) await sleep(5);
      times.push(performance.now() - since);
      await sleep(500);
    }
    assert.ok(Math.min(...times) < 100, `${times}`);
  },
);

nginx(
  "sends the OAuth paths to auth and the rest to the active color, and names the color on each",
  async ({ stack, url }) => {
    const metadata = await stack.get("/.well-known/oauth-authorization-server");
    assert.is(JSON.parse(metadata.body).issuer, url);
    const redirect_uri = "http://localhost:9/back";
    const registered = await request(`${url}/register`, {
      method: "POST",
      body: JSON.stringify({ redirect_uris: [redirect_uri] }),
    });
    assert.is(registered.statusCode, 201);
    const { client_id } = (await registered.body.json()) as { client_id: string };
    assert.match(client_id, /^[0-9a-f]+$/);
    const asked = new URLSearchParams({ client_id, redirect_uri, state: "7" });
    const authorized = await request(`${url}/authorize?${asked}`);
    await authorized.body.dump();
    assert.match(String(authorized.headers.location), /^http:\/\/localhost:9\/back\?code=.*&state=7$/);
    const token = await request(`${url}/token`, { method: "POST" });
    assert.is(((await token.body.json()) as { token_type: string }).token_type, "Bearer");
    for (const path of ["/health", "/no/such/path", "/.well-known/x", "/register"]) {
      assert.is((await stack.get(path)).color, "green", path);
    }
  },
);

nginx("streams: each event arrives when it was sent, not at the end", async ({ url }) => {
  const { body, headers } = await request(`${url}/mcp`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: "count", arguments: { n: 5, interval: 0.2 }, _meta: { progressToken: 1 } },
    }),
  });
  assert.match(String(headers["content-type"]), "text/event-stream");
  const arrivals: number[] = [];
  let text = "";
  for await (const chunk of body) {
    arrivals.push(performance.now());
    text += chunk;
  }
  assert.is(text.match(/notifications\/progress/g)?.length, 5);
  assert.match(text, '"text": "green 15"');
  assert.ok(
    (arrivals.at(-1) ?? 0) - (arrivals[0] ?? 0) > 700,
    `arrived within ${(arrivals.at(-1) ?? 0) - (arrivals[0] ?? 0)} ms`,
  );
});

nginx("logs color, upstream address, status and times, and no query string", async ({ stack, url }) => {
  await (await request(`${url}/health?secret=42`)).body.dump(); // nginx writes its log once a second
  await sleep(200);
  const { stdout } = await stack.docker("logs", "--tail", "5", stack.nginxContainer);
  assert.match(
    stdout,
    /"GET \/health HTTP\/1.1" 200 \d+ color=green upstream=[\d.]+:8081 upstream_status=200 time=[\d.]+ upstream_time=[\d.]+/,
  );
  assert.not.match(stdout, "secret");
});

nginx("starts while the active color is down, and finds it when it is back", async ({ stack }) => {
  const green = `${stack.project}-api-green`;
  await stack.docker("stop", green);
  await stack.docker("restart", "--time", "1", stack.nginxContainer);
  await waitFor("an answer without an upstream", async () => (await stack.get()).status === 502);
  await stack.docker("start", green);
  await waitFor("green serves", serves(stack, "green"));
});

nginx("follows a color to a new address, and never takes the other color's for it", async ({ stack }) => {
  const [blue, green] = [`${stack.project}-api-blue`, `${stack.project}-api-green`];
  const address = (name: string) =>
    stack.field(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
  const before = await address(green);
  // As after a reboot: the other one comes up first and gets the address.
  await stack.docker("stop", green);
  await stack.docker("start", blue);
  assert.is(await address(blue), before, "the test did not get the addresses to move");
  await stack.docker("start", green);
  assert.is.not(await address(green), before);
  await waitFor("green serves at its new address", serves(stack, "green"));
  for (let i = 0; i < 10; i++) assert.ok(await serves(stack, "green")());
  await stack.docker("stop", blue);
});

nginx("only nginx is published beyond this machine", async ({ stack }) => {
  const { stdout } = await stack.docker(
    "ps",
    "--filter",
    `label=com.docker.compose.project=${stack.project}`,
    "--format",
    "{{.Names}} {{.Ports}}",
  );
  const open = stdout.split("\n").filter((line) => /0\.0\.0\.0|\[::\]|:::/.test(line));
  assert.equal(
    open.map((line) => line.split(" ")[0]),
    [stack.nginxContainer],
  );
});
nginx(
  "a worker that does not hear of a reload fails the switch, and the next run says so",
  async ({ stack }) => {
    const inNginx = (line: string) => stack.docker("exec", stack.nginxContainer, "sh", "-c", line);
    const { stdout } = await inNginx("grep -ls '[w]orker process' /proc/[0-9]*/cmdline | head -n 1");
    const pid = stdout.match(/\d+/)?.[0] ?? "";
    const { color } = await stack.get();
    await inNginx(`kill -STOP ${pid}`); // as one that hangs on its disk
    const run = await stack.rollback();
    await inNginx(`kill -CONT ${pid}`);
    assert.is(run.exitCode, 3, run.stdall);
    assert.match(run.stderr, "an old worker is still accepting requests");
    assert.ok(await serves(stack, color)());
    const status = await stack.status();
    assert.match(status.stdout, /the rollback of \S+ ended with NginxReloadError/);
    const next = await stack.rollback();
    assert.is(next.exitCode, 0, next.stdall);
    assert.match(next.stderr, "ended with NginxReloadError: repairing what it left");
    const history = await readHistory(join(stack.stateDir, "history.jsonl"));
    assert.equal(
      history.slice(-2).map(({ result }) => result),
      ["NginxReloadError", "done"],
    );
  },
);
nginx.run();
