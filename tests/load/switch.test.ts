import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/killed.ts";
import { type Mix, type Shot, startLoad } from "../../bench/testbed/load.ts";
import { createReleased, type Scratch } from "../../bench/testbed/scratch.ts";
import type { Color } from "../../lib/color.ts";
import { readHistory } from "../../lib/run/history.ts";
import { suite } from "../suite.ts";

const LOAD: Mix = {
  clients: { post: 25, get: 25, patient: 10, slow: 5, stream: 5 },
  thinkMs: 50,
  patientMs: [500, 2500],
};

/** What was lost, with how often. */
function losses(shots: readonly Shot[]): Record<string, number> {
  const lost: Record<string, number> = {};
  for (const { kind, failure } of shots) {
    if (failure) lost[`${kind}: ${failure}`] = (lost[`${kind}: ${failure}`] ?? 0) + 1;
  }
  return lost;
}

const lossless = suite<{ stack: Scratch; url: string }>("switch under load");
lossless.before(async (context) => {
  context.stack = await createReleased("switch", {
    API_IDLE_SECONDS: "2",
    VERIFY_SECONDS: "0",
    DRAIN_SECONDS: "20",
  });
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
lossless.after(({ stack }) => stack.remove());

lossless("20 switches lose nothing, a new address of the other color included", async ({ stack, url }) => {
  const load = startLoad(url, LOAD);
  const idle = `${stack.project}-api-green`;
  const address = () => stack.field(idle, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
  for (let i = 0; i < 20; i++) {
    if (i === 10) {
      // Blue serves. Green is made anew, and a stranger has taken the address that it had.
      await stack.docker("start", idle);
      const before = await address();
      await stack.docker("rm", "--force", idle);
      const network = `${stack.project}_default`;
      await stack.docker(
        "run",
        "-d",
        "--rm",
        "--name",
        `${stack.project}-squatter`,
        "--network",
        network,
        "nginx:1.30",
        "sleep",
        "300",
      );
      const run = await stack.rollback();
      assert.is(run.exitCode, 0, run.stdall);
      assert.is.not(await address(), before, "the test did not get the address to move");
      continue;
    }
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
  }
  const shots = await load.stop();
  await stack.docker("rm", "--force", `${stack.project}-squatter`);
  assert.equal(losses(shots), {});
  for (const kind of ["post", "get", "patient", "slow", "stream"]) {
    for (const color of ["blue", "green"]) {
      assert.ok(
        shots.some((shot) => shot.kind === kind && shot.color === color),
        `no ${kind} was answered by ${color}`,
      );
    }
  }
});

const call = (url: string, name: string, args: object) =>
  request(`${url}/mcp`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }),
  });

/** Runs a rollback; tells when an old worker was last seen meanwhile and when the color it left was told to stop, in ms. */
async function watchedRollback(stack: Scratch, left: Color): Promise<{ lastSeen: number; stopped: number }> {
  const since = Date.now() / 1000;
  let lastSeen = 0;
  let over = false;
  const watch = (async () => {
    while (!over) {
      const at = Date.now();
      const titles = ["sh", "-c", "grep -ls '[s]hutting down' /proc/[0-9]*/cmdline"];
      if ((await stack.docker("exec", stack.nginxContainer, ...titles)).stdout) lastSeen = at;
    }
  })();
  const run = await stack.rollback();
  over = true;
  await watch;
  assert.is(run.exitCode, 0, run.stdall);
  const filters = ["--filter", `container=${stack.project}-api-${left}`, "--filter", "event=kill"];
  const span = ["--since", since.toFixed(3), "--until", (Date.now() / 1000).toFixed(3)];
  const events = await stack.docker("events", ...span, ...filters, "--format", "{{.TimeNano}}");
  return { lastSeen, stopped: Number(events.stdout.split("\n")[0]) / 1e6 };
}

lossless(
  "an idle connection is used again after 9 s, a slow call outlives the switch, and only then is the old color stopped",
  async ({ stack, url }) => {
    const load = startLoad(url, { clients: { patient: 20 }, thinkMs: 0, patientMs: [8500, 9000] });
    const slow = call(url, "slow", { seconds: 7 });
    await sleep(500); // each patient client has asked once, and idles
    const { lastSeen, stopped } = await watchedRollback(stack, "blue");
    const { statusCode, body } = await slow;
    assert.is(statusCode, 200);
    assert.match(await body.text(), "blue waited 7");
    assert.equal(losses(await load.stop()), {});
    assert.ok(lastSeen > 0, "no old worker was ever seen");
    assert.ok(
      stopped > lastSeen,
      `blue was told to stop ${lastSeen - stopped} ms before an old worker was last seen`,
    );
  },
);

lossless("processes that come and go in nginx's container do not end a drain", async ({ stack, url }) => {
  const before = (await stack.front()).color;
  const slow = call(url, "slow", { seconds: 6 }).then(
    async ({ statusCode, body }) => `${statusCode} ${await body.text()}`,
    (error) => `lost: ${error}`,
  );
  await sleep(300);
  const churn = "end=$(($(date +%s) + 9)); while [ $(date +%s) -lt $end ]; do sh -c : & sh -c : & wait; done";
  const coming = stack.docker("exec", stack.nginxContainer, "sh", "-c", churn);
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  assert.not.match(run.stderr, "still open");
  assert.match(await slow, new RegExp(`^200 .*${before} waited 6`));
  await coming;
});

lossless("what is still open at the limit is counted, reported and closed", async ({ stack, url }) => {
  const notices: string[] = [];
  const server = createServer(async (request, response) => {
    for await (const chunk of request) notices.push(String(chunk));
    response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const NOTIFY_URL = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const open = Promise.allSettled(
    [
      call(url, "count", { n: 100, interval: 0.3 }),
      call(url, "count", { n: 100, interval: 0.3 }),
      call(url, "slow", { seconds: 15 }),
    ].map(async (sent) => (await sent).body.text()),
  );
  await sleep(500);
  const run = await stack.rollback(["--quiet"], { DRAIN_SECONDS: "2", NOTIFY_URL });
  server.close();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stderr, "3 requests to blue are still open after 2 s: closing");
  assert.match(
    run.stdout,
    /Rolled back blue → green: .*; 3 requests were interrupted at the drain limit in [\d.]+ s\n/,
  );
  const notice = JSON.parse(notices.at(-1) ?? "{}");
  const entry = (await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1);
  for (const told of [notice, entry]) {
    assert.equal([told?.result, told?.cut], ["done", 3]);
    assert.match(told?.message, "3 requests were interrupted at the drain limit");
  }
  assert.match((await stack.look()).stdout, /blue → green {3}done .* 3 cut/);
  const ends = await open;
  assert.equal(
    ends.map(({ status }) => status),
    ["rejected", "rejected", "rejected"],
  );
});

lossless("idle connections to the old color are neither counted nor waited for", async ({ stack, url }) => {
  const before = (await stack.front()).color;
  const env = { API_IDLE_SECONDS: "60", DRAIN_SECONDS: "3" };
  const load = startLoad(url, { clients: { get: 10 }, thinkMs: 20, patientMs: [0, 0] }); // fills nginx's idle connections
  await sleep(500);
  const open = Promise.allSettled(
    [1, 2].map(async () => (await call(url, "slow", { seconds: 20 })).body.text()),
  );
  let over = false;
  const asking = (async () => {
    while (!over) {
      await stack.front(`/_loop/${before}/health`); // by a new worker, of the color that drains
      await sleep(100);
    }
  })();
  await sleep(500);
  const run = await stack.rollback([], env);
  over = true;
  await Promise.all([asking, open]);
  const lost = losses(await load.stop());
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stderr, `2 requests to ${before} are still open after 3 s`);
  assert.equal(lost, {});

  const quiet = await stack.rollback([], env);
  assert.is(quiet.exitCode, 0, quiet.stdall);
  assert.not.match(quiet.stderr, "still open");
});

lossless("a release that begins while old workers of the last one drain works", async ({ stack, url }) => {
  const before = (await stack.front()).color;
  const long = call(url, "count", { n: 60, interval: 0.2 }).then(async ({ body }) => body.text());
  await sleep(300);
  const first = startRun(stack, "rollback");
  await first.passed("mark");
  first.kill("SIGKILL");
  await first.ended;
  const run = await stack.deploy([], { DRAIN_SECONDS: "20" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await stack.front()).color, before);
  assert.match(await long, `${before} ${(60 * 61) / 2}`);
});

lossless(
  "the load sees what it is there to see: without the keep-alive protection, switches lose requests",
  async ({ stack, url }) => {
    const file = join(stack.folder, "nginx/nginx-blue-green.conf");
    const protectedConf = await readFile(file, "utf8");
    await writeFile(file, protectedConf.replace(/^ *keepalive_min_timeout .*$/m, ""));
    const load = startLoad(url, LOAD);
    const anyLost = () => Object.keys(losses(load.shots)).length > 0;
    // The first of them loads the configuration; how soon a loss comes is chance.
    for (let i = 0; i < 25 && !anyLost(); i++) await stack.rollback();
    const lost = losses(await load.stop());
    await writeFile(file, protectedConf);
    assert.ok(
      Object.values(lost).reduce((a, b) => a + b, 0) > 0,
      "nothing was lost: this load would not notice a loss",
    );
  },
);
lossless.run();
