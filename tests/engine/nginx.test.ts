import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import {
  addVaultFile,
  createScratch,
  EXAMPLE_AUTH,
  type Scratch,
  waitFor,
} from "../../bench/testbed/scratch.ts";
import { COLORS, type Color } from "../../lib/color.ts";
import { readHistory } from "../../lib/run/history.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { pollUntil } from "../../lib/util/poll.ts";
import { suite } from "../suite.ts";

const nginx = suite<{ stack: Scratch; url: string }>("nginx");
nginx.before(async (context) => {
  context.stack = await createScratch("nginx");
  context.stack.env.LOOP_AUTH_CONTEXT = EXAMPLE_AUTH;
  await addVaultFile(context.stack); // with existing containers, an empty vault would look unmounted
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
nginx.after(({ stack }) => stack.remove());

const serves = (stack: Scratch, color: string) => async () => {
  const response = await stack.get();
  return response.status === 200 && response.color === color && JSON.parse(response.body).color === color;
};

nginx(
  "nginx serves blue after a plain `docker compose up -d`, and a release can follow",
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

nginx("Docker restarts nginx if its process dies after a release", async ({ stack }) => {
  process.kill(Number(await stack.field(stack.nginxContainer, "{{.State.Pid}}")), "SIGKILL");
  await waitFor(
    "nginx was restarted",
    async () => (await stack.field(stack.nginxContainer, "{{.RestartCount}}")) === "1",
  );
  await waitFor("green serves", serves(stack, "green"), 10);
});

nginx("after a reload, new workers get new connections while old workers still listen", async ({ stack }) => {
  const master = Number(await stack.field(stack.nginxContainer, "{{.State.Pid}}"));
  /** Reloads nginx for `color`. Returns how many connections new workers got before old workers got their last one. */
  const reload = async (color: Color): Promise<number> => {
    await replaceLink(join(stack.folder, "nginx/active-upstream.conf"), `${color}-upstream.conf`);
    process.kill(master, "SIGHUP");
    const byNew: boolean[] = [];
    // Old workers that listen get some of a hundred connections.
    while (byNew.length < 100 || !byNew.slice(-100).every(Boolean)) {
      assert.ok(byNew.length < 5000, "no new worker answers");
      byNew.push((await stack.get("/_loop/color")).color === color);
      await sleep(2);
    }
    return byNew.slice(0, Math.max(0, byNew.lastIndexOf(false))).filter(Boolean).length;
  };
  // About 5 for each reload, 1 on a machine four times slower. Without reuseport, 1 to 3 in 20 reloads.
  let sum = 0;
  for (let i = 0; i < 40 && sum <= 20; i++) sum += await reload(COLORS[i % 2] ?? "blue");
  await reload("green"); // the color that runs
  assert.ok(sum > 20, `${sum} in 40 reloads`);
});

nginx(
  "nginx sends the OAuth paths to auth and the rest to the active color, and adds the color header to all",
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
    const query = new URLSearchParams({ client_id, redirect_uri, state: "7" });
    const authorized = await request(`${url}/authorize?${query}`);
    await authorized.body.dump();
    assert.match(String(authorized.headers.location), /^http:\/\/localhost:9\/back\?code=.*&state=7$/);
    const token = await request(`${url}/token`, { method: "POST" });
    assert.is(((await token.body.json()) as { token_type: string }).token_type, "Bearer");
    for (const path of ["/health", "/no/such/path", "/.well-known/x", "/register"]) {
      assert.is((await stack.get(path)).color, "green", path);
    }
  },
);

nginx("nginx streams: each event arrives when it is sent, not at the end", async ({ url }) => {
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

/** How many responses to `postTwice` are complete. */
const responsesIn = (received: string): number =>
  received.match(/HTTP\/1.1 404 [\s\S]*?\r\n\r\n[\s\S]*?Not Found/g)?.length ?? 0;

/**
 * Sends two POSTs on one connection, each with its body 100 ms after its headers, to a path that the API does not have: it
 * answers before it reads the body. Returns what arrives until each has its response, 10 s at most.
 */
async function postTwice(url: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let received = "";
  socket.on("data", (chunk) => {
    received += chunk;
  });
  socket.on("error", (error) => {
    received += error.message;
  });
  for (let i = 0; i < 2; i++) {
    socket.write("POST /no/such/path HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");
    await sleep(100);
    socket.write("{}");
    await pollUntil(10, async () => responsesIn(received) > i);
  }
  socket.destroy();
  return received;
}

nginx(
  "a client whose body comes late keeps its connection, even if the API answers before",
  async ({ url }) => {
    const received = await postTwice(url);
    assert.is(responsesIn(received), 2, received);
  },
);

nginx("nginx logs color, upstream address, status and times, but no query string", async ({ stack, url }) => {
  const started = new Date().toISOString();
  await (await request(`${url}/health?secret=42`)).body.dump();
  const logged = async () => (await stack.docker("logs", "--since", started, stack.nginxContainer)).stdout;
  const line =
    /"GET \/health HTTP\/1.1" 200 \d+ color=green upstream=[\d.]+:8081 upstream_status=200 time=[\d.]+ upstream_time=[\d.]+/;
  await waitFor("nginx writes its log", async () => line.test(await logged())); // within a second
  assert.not.match(await logged(), "secret");
});

nginx("nginx starts while the active color is down and finds it when it is back", async ({ stack }) => {
  const green = `${stack.project}-api-green`;
  await stack.docker("stop", green);
  await stack.docker("restart", "--time", "1", stack.nginxContainer);
  await waitFor("a response without an upstream", async () => (await stack.get()).status === 502);
  await stack.docker("start", green);
  await waitFor("green serves", serves(stack, "green"), 10);
});

nginx(
  "nginx follows a color to a new address and never confuses it with the other color",
  async ({ stack }) => {
    const [blue, green] = [`${stack.project}-api-blue`, `${stack.project}-api-green`];
    const address = (name: string) =>
      stack.field(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    const before = await address(green);
    // As after a reboot: the other color starts first and gets the address.
    await stack.docker("stop", green);
    await stack.docker("start", blue);
    assert.is(await address(blue), before, "the test did not manage to swap the addresses");
    await stack.docker("start", green);
    assert.is.not(await address(green), before);
    await waitFor("green serves at its new address", serves(stack, "green"), 10);
    for (let i = 0; i < 10; i++) assert.ok(await serves(stack, "green")());
    await stack.docker("stop", blue);
  },
);

nginx("only nginx's port is published beyond this machine", async ({ stack }) => {
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
  "a worker that does not notice a reload fails the switch, and the next run repairs that",
  async ({ stack }) => {
    const inNginx = (line: string) => stack.docker("exec", stack.nginxContainer, "sh", "-c", line);
    const { stdout } = await inNginx("grep -ls '[w]orker process' /proc/[0-9]*/cmdline");
    // Not the first worker: it resolves the colors' names for all of them.
    const pid = Math.max(...(stdout.match(/\d+/g) ?? []).map(Number));
    const { color } = await stack.get();
    const rollback = startRun(stack, "rollback");
    // From here on the run asks nginx until it answers, and half of the new connections go to the stopped worker.
    await rollback.waitForStep("start");
    await inNginx(`kill -STOP ${pid}`); // like a worker that hangs on disk access
    const { exitCode, output } = await rollback.ended;
    await inNginx(`kill -CONT ${pid}`);
    assert.is(exitCode, 3, output);
    assert.match(output, "an old worker is still accepting requests");
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
