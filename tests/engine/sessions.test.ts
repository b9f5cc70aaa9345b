import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { type Sessions, startSessions } from "../../bench/testbed/sessions.ts";
import { keyHeaders } from "../../lib/nginx/key.ts";
import type { Status } from "../../lib/release/status.ts";
import { expectIntact, killRollback } from "../session-kills.ts";
import { suite } from "../suite.ts";

interface Bed {
  stack: Scratch;
  /** All sessions of the current test. */
  opened: Sessions[];
}

const url = (stack: Scratch): string => `http://127.0.0.1:${stack.env.NGINX_PORT}`;

/** The limits are far away, unless a test sets others. */
const SETTINGS = {
  DRAIN_SECONDS: "20",
  VERIFY_SECONDS: "0",
  SESSION_SECONDS: "600",
  SESSION_IDLE_SECONDS: "300",
};

/** Opens sessions and starts their calls. Without listening streams, because each would hold a drain until its limit. */
async function open({ stack, opened }: Bed, count: number): Promise<Sessions> {
  const calls = { thinkMs: 50, slowEveryMs: 1000, slowSeconds: 0.5, listen: false };
  const sessions = await startSessions(url(stack), { count, ...calls });
  opened.push(sessions);
  return sessions;
}

const statusOf = async (stack: Scratch): Promise<Status> =>
  JSON.parse((await stack.status(["--json"])).stdout);

async function succeed(run: ReturnType<Scratch["deploy"]>): Promise<string> {
  const { exitCode, stdall } = await run;
  assert.is(exitCode, 0, stdall);
  return stdall;
}

/** Kills the background processes of this stack. */
async function killBackground({ project }: Scratch): Promise<void> {
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const [command, environment] = await Promise.all(
      ["cmdline", "environ"].map((file) => readFile(`/proc/${pid}/${file}`, "utf8").catch(() => "")),
    );
    if (command?.includes("end-sessions.m") && environment?.includes(`COMPOSE_PROJECT_NAME=${project}\0`))
      process.kill(Number(pid), "SIGKILL");
  }
}

const sticky = suite<Bed>("sessions");
sticky.before(async (context) => {
  const stack = await createScratch("sessions");
  Object.assign(context, { stack, opened: [] });
  Object.assign(stack.env, SETTINGS, await stack.sessionApi());
  for (let i = 0; i < 2; i++) await succeed(stack.deploy());
});
sticky.after(({ stack }) => stack.remove());

/** Each test starts without sessions and a kept color; blue serves. */
sticky.after.each(async ({ stack, opened }) => {
  await Promise.all(opened.splice(0).map((sessions) => sessions.stop()));
  await stack.endSessions(["--now"]);
  if ((await stack.get()).color === "green") await succeed(stack.rollback());
  await stack.endSessions(["--now"]); // green may have created some too
  assert.equal(await stack.running(), ["blue"]);
});

sticky("without sessions, the old color is stopped as soon as its requests have ended", async ({ stack }) => {
  const output = await succeed(stack.rollback());
  assert.not.match(output, "still serves its sessions");
  assert.equal(await stack.running(), ["green"]);
  assert.is((await statusOf(stack)).sessions, null);
  await succeed(stack.rollback());
});

sticky(
  "sessions stay with their color through deploys and rollbacks; new ones go to the active color",
  async (bed) => {
    const { stack } = bed;
    const sessions = await open(bed, 10);
    for (let i = 0; i < 2; i++) {
      assert.match(await succeed(stack.deploy()), "blue still serves its sessions");
      assert.equal(await stack.running(), ["blue", "green"]);
      const status = await statusOf(stack);
      assert.equal(
        [status.serving, status.sessions?.color, status.sessions?.inUse, status.drift],
        ["green", "blue", 10, []],
      );
      const started = await open(bed, 2);
      await sleep(300);
      await succeed(stack.rollback());
      expectIntact(await started.stop(), "green");
    }
    expectIntact(await sessions.stop(), "blue");
  },
);

sticky(
  "X-Loop-Color and the log name the color that handles a request; an unknown tag leads to the active color",
  async (bed) => {
    const { stack } = bed;
    const sessions = await open(bed, 1);
    await succeed(stack.rollback());
    await sleep(300);
    const [session] = sessions.report().sessions;
    const id = session?.id ?? "";
    const ping = async (sessionId: string) => {
      const { statusCode, headers, body } = await request(`${url(stack)}/mcp`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          "mcp-session-id": sessionId,
        },
        body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" }),
      });
      await body.dump();
      return [statusCode, headers["x-loop-color"], headers["mcp-session-id"] ?? null];
    };
    assert.equal(await ping(id), [200, "blue", id]);
    const [own = ""] = id.split(/\.loop-[0-9a-f]{8}$/);
    assert.is.not(own, id, "the id has a tag");
    for (const wrong of [own, `${own}.loop-00000000`, "x.loop-00000000"])
      assert.equal((await ping(wrong)).slice(0, 2), [404, "green"], wrong);
    const { headers } = await request(`${url(stack)}/_loop/color`, {
      headers: { ...(await keyHeaders({ nginxFolder: `${stack.folder}/nginx` })), "mcp-session-id": id },
    });
    assert.equal([headers["x-loop-color"], headers["x-loop-kept"]], ["green", "blue"]);
    await waitFor("the log names blue", async () =>
      /"POST \/mcp HTTP\/1.1" 200 .* color=blue/.test(
        (await stack.docker("logs", "--tail", "50", stack.nginxContainer)).stdout,
      ),
    );
    expectIntact(await sessions.stop(), "blue");
  },
);

sticky(
  "the old color is stopped once its sessions are idle, and its requests get 404 from the active color",
  async (bed) => {
    const { stack } = bed;
    const sessions = await open(bed, 2);
    const env = { SESSION_IDLE_SECONDS: "1.5" };
    await succeed(stack.rollback([], env));
    await sleep(2500);
    assert.equal(await stack.running(), ["blue", "green"], "its sessions are in use");
    const report = await sessions.stop();
    expectIntact(report, "blue");
    await waitFor("blue is stopped", async () => (await stack.containerStatus("blue")) === "exited", 20);
    await waitFor("the run has ended", async () => (await statusOf(stack)).run === null);
    const status = await statusOf(stack);
    assert.equal([status.sessions, status.drift], [null, []]);
  },
);

sticky("at the limit, sessions in use end with 404; open calls are completed", async (bed) => {
  const { stack } = bed;
  const sessions = await open(bed, 2);
  await succeed(stack.rollback([], { SESSION_SECONDS: "3", STANDBY: "paused" }));
  await waitFor("blue is paused", async () => (await stack.containerStatus("blue")) === "paused", 30);
  await sleep(500);
  const { failures, gaps } = await sessions.stop();
  assert.is(gaps, 0);
  assert.ok(Object.keys(failures).length > 0, "they go on");
  for (const failure of Object.keys(failures)) assert.match(failure, "404");
});

sticky("a deploy that needs the old color builds first, and says how many sessions end", async (bed) => {
  const { stack } = bed;
  const sessions = await open(bed, 3);
  await succeed(stack.rollback());
  await sleep(500);
  const output = await succeed(stack.deploy());
  assert.match(output, "ending the sessions of blue: 3 used in the last 300 s");
  assert.ok(output.indexOf("build blue") < output.indexOf("ending the sessions of blue"));
  const { failures } = await sessions.stop();
  for (const failure of Object.keys(failures)) assert.match(failure, "404");
});

sticky("a deploy that fails before it needs the old color ends no session", async (bed) => {
  const { stack } = bed;
  const sessions = await open(bed, 2);
  await succeed(stack.rollback());
  const run = await stack.deploy([], { LOOP_API_CONTEXT: `${stack.folder}/nginx` });
  assert.is(run.exitCode, 1, run.stdall);
  await sleep(300);
  expectIntact(await sessions.stop(), "blue");
});

sticky("if the old color crashes, only its sessions end, with 404", async (bed) => {
  const { stack } = bed;
  const old = await open(bed, 2);
  await succeed(stack.rollback());
  const current = await open(bed, 2);
  await stack.docker("update", "--restart", "no", `${stack.project}-api-blue`);
  await stack.docker("kill", `${stack.project}-api-blue`);
  await sleep(1000);
  expectIntact(await current.stop(), "green");
  const { failures, failed } = await old.stop();
  assert.ok(failed > 0);
  const gone = Object.entries(failures).filter(([text]) => text.includes("404"));
  assert.ok(gone.length > 0, JSON.stringify(failures));
  await stack.docker("update", "--restart", "unless-stopped", `${stack.project}-api-blue`);
});

sticky(
  "if the process that ends the sessions is killed, status reports it, and end-sessions does it",
  async (bed) => {
    const { stack } = bed;
    const sessions = await open(bed, 1);
    await succeed(stack.rollback([], { SESSION_SECONDS: "2" }));
    await killBackground(stack);
    expectIntact(await sessions.stop(), "blue");
    await sleep(2000);
    assert.equal(await stack.running(), ["blue", "green"]);
    const run = await stack.endSessions([], { SESSION_SECONDS: "2" });
    assert.is(run.exitCode, 0, run.stdall);
    assert.equal(await stack.running(), ["green"]);
  },
);

for (const [step, signal] of [
  ["switch", "SIGKILL"],
  ["switch", "SIGTERM"],
] as const) {
  // Each step is a soak test.
  sticky(`a rollback that gets ${signal} after "${step}" loses no session of either color`, async (bed) => {
    const { stack } = bed;
    const old = await open(bed, 3);
    await succeed(stack.rollback());
    const current = await open(bed, 3);
    await killRollback(stack, step, signal);
    expectIntact(await old.stop(), "blue");
    expectIntact(await current.stop(), "green");
  });
}
sticky.run();
