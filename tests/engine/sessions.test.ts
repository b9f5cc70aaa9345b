import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { release } from "../../bench/testbed/released.ts";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { type Sessions, startSessions } from "../../bench/testbed/sessions.ts";
import { keyHeaders } from "../../lib/nginx/key.ts";
import type { Status } from "../../lib/release/status-report.ts";
import { readLock } from "../../lib/run/lock.ts";
import { endRollback, expectIntact, killRollback } from "../session-kills.ts";
import { suite } from "../suite.ts";

interface Bed {
  stack: Scratch;
  /** All sessions that a test has opened. */
  opened: Sessions[];
  /** Sessions of blue, from the first test on, and of green. Several tests watch them. */
  ofBlue: Sessions;
  ofGreen: Sessions;
}

const url = (stack: Scratch): string => `http://127.0.0.1:${stack.env.NGINX_PORT}`;

/** The limits are far away, unless a test sets others. */
const SETTINGS = {
  DRAIN_SECONDS: "20",
  VERIFY_SECONDS: "0",
  SESSION_SECONDS: "600",
  SESSION_IDLE_SECONDS: "300",
  HEALTH_TIMEOUT: "5", // a late answer would end sessions that the next tests need
};

/** Opens sessions and starts their calls: some are open at all times, and the API has time for health checks. Without listening streams, because each would hold a drain until its limit. */
async function open({ stack, opened }: Bed, count: number, slowEveryMs = 2000): Promise<Sessions> {
  const calls = { thinkMs: 300, slowEveryMs, slowSeconds: 0.5, listen: false };
  const sessions = await startSessions(url(stack), { count, ...calls });
  opened.push(sessions);
  return sessions;
}

const statusOf = async (stack: Scratch): Promise<Status> =>
  JSON.parse((await stack.status(["--json"])).stdout);

/** Sends a request of a session. Returns the status, the color, and the session that the response names. */
async function post(stack: Scratch, session: string, method: string) {
  const { statusCode, headers, body } = await request(`${url(stack)}/mcp`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-session-id": session,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method }),
  });
  await body.dump();
  return [statusCode, headers["x-loop-color"], headers["mcp-session-id"] ?? null];
}

/** Waits until each session has made new calls. Fails unless all calls so far succeeded, on this color. */
async function expectUse(sessions: Sessions, color: string): Promise<void> {
  const before = sessions.report().sessions.map(({ calls }) => calls);
  await waitFor("each session makes new calls", async () =>
    sessions.report().sessions.every(({ calls }, i) => calls > (before[i] ?? 0) + 1),
  );
  expectIntact(sessions.report(), color);
}

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

/** Each test goes on from the state in which the one before it leaves the stack, because every release costs seconds. */
const sticky = suite<Bed>("sessions");
sticky.before(async (context) => {
  const stack = await createScratch("sessions");
  Object.assign(context, { stack, opened: [] });
  Object.assign(stack.env, SETTINGS, await stack.sessionApi());
  await release(stack);
});
sticky.after(async ({ stack, opened }) => {
  await Promise.all(opened.map((sessions) => sessions.stop())); // otherwise they would run forever
  await stack.remove();
});

sticky("sessions stay with their color through a deploy; new ones go to the active color", async (bed) => {
  const { stack } = bed;
  bed.ofBlue = await open(bed, 3);
  assert.match(await succeed(stack.deploy()), "blue still serves its sessions");
  assert.equal(await stack.running(), ["blue", "green"]);
  const { serving, sessions, drift } = await statusOf(stack);
  assert.equal([serving, sessions?.color, sessions?.inUse, drift], ["green", "blue", 3, []]);
  bed.ofGreen = await open(bed, 2);
  await expectUse(bed.ofBlue, "blue");
  await expectUse(bed.ofGreen, "green");
});

sticky(
  "X-Loop-Color and the log name the color that handles a request; an unknown tag leads to the active color",
  async ({ stack, ofBlue }) => {
    const [session] = ofBlue.report().sessions;
    const id = session?.id ?? "";
    const ping = (sessionId: string) => post(stack, sessionId, "ping");
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
  },
);

sticky(
  "a deploy that fails before it needs the old color ends no session",
  async ({ stack, ofBlue, ofGreen }) => {
    const run = await stack.deploy([], { LOOP_API_CONTEXT: `${stack.folder}/nginx` });
    assert.is(run.exitCode, 1, run.stdall);
    await expectUse(ofBlue, "blue");
    await expectUse(ofGreen, "green");
  },
);

// Each step is a soak test.
sticky(
  'a rollback undone after SIGTERM, and one that SIGKILL ends after "switch" and the next finishes, lose no session',
  async ({ stack, ofBlue, ofGreen }) => {
    await endRollback(stack, "switch", "SIGTERM");
    assert.equal([(await stack.get()).color, await stack.running()], ["green", ["blue", "green"]]);
    const next = await killRollback(stack, "switch", "SIGKILL");
    assert.match(next, "Rolled back, finishing the interrupted run: green → blue");
    assert.equal([(await stack.get()).color, await stack.running()], ["blue", ["blue", "green"]]);
    await expectUse(ofBlue, "blue");
    await expectUse(ofGreen, "green");
  },
);

sticky(
  "a deploy that needs the old color builds first, says how many sessions end, and ends no others; its canary gets new ones",
  async (bed) => {
    const { stack, ofBlue, ofGreen } = bed;
    const run = startRun(stack, "deploy", { CANARY_PERCENT: "50", CANARY_SECONDS: "6" });
    await run.waitForStep("send ");
    const split = await open(bed, 14, 3000);
    const { exitCode, output } = await run.ended;
    assert.is(exitCode, 0, output);
    await sleep(500);
    const during = await split.stop();
    assert.equal([during.failures, during.gaps], [{}, 0]);
    const colors = new Set(during.sessions.map((session) => session.colors.join()));
    assert.equal([...colors].sort(), ["blue", "green"], "each session stayed, and both colors got some");
    assert.match(output, "ending the sessions of green: 2 used in the last 300 s");
    assert.ok(output.indexOf("build green") < output.indexOf("ending the sessions of green"));
    const { failures } = await ofGreen.stop();
    assert.ok(Object.keys(failures).length > 0, "they go on");
    for (const failure of Object.keys(failures)) assert.match(failure, "404");
    const started = await open(bed, 2);
    await expectUse(started, "green");
    expectIntact(await started.stop(), "green");
    expectIntact(await ofBlue.stop(), "blue");
    await succeed(stack.endSessions(["--now"]));
    assert.equal(await stack.running(), ["green"]);
  },
);

sticky("the old color is stopped once its sessions are idle", async (bed) => {
  const { stack } = bed;
  const sessions = await open(bed, 2);
  await succeed(stack.rollback([], { SESSION_IDLE_SECONDS: "1.5" }));
  await sleep(2500);
  assert.equal(await stack.running(), ["blue", "green"], "its sessions are in use");
  expectIntact(await sessions.stop(), "green");
  await waitFor("green is stopped", async () => (await stack.containerStatus("green")) === "exited", 20);
  await waitFor(
    "the run has ended",
    async () => (await readLock(join(stack.stateDir, "lock")))?.held === false,
  );
  const { run, sessions: kept, drift } = await statusOf(stack);
  assert.equal([run, kept, drift], [null, null, []]);
});

sticky(
  "at the limit, sessions in use end with 404; if the process that ends them was killed, end-sessions does it",
  async (bed) => {
    const { stack } = bed;
    const sessions = await open(bed, 2);
    const limit = { SESSION_SECONDS: "2", STANDBY: "paused" };
    await succeed(stack.rollback([], limit));
    await killBackground(stack);
    await sleep(2000);
    assert.equal(await stack.running(), ["blue", "green"]);
    await expectUse(sessions, "blue");
    await succeed(stack.endSessions([], limit));
    assert.is(await stack.containerStatus("blue"), "paused");
    await sleep(500);
    const { failures, gaps } = await sessions.stop();
    assert.is(gaps, 0);
    assert.ok(Object.keys(failures).length > 0, "they go on");
    for (const failure of Object.keys(failures)) assert.match(failure, "404");
  },
);

sticky("if the old color crashes, only its sessions end, with 404", async (bed) => {
  const { stack } = bed;
  const old = await open(bed, 2);
  await succeed(stack.rollback());
  const current = await open(bed, 2);
  await stack.docker("update", "--restart", "no", `${stack.project}-api-green`);
  await stack.docker("kill", `${stack.project}-api-green`);
  await sleep(1000);
  expectIntact(await current.stop(), "blue");
  const { failures, failed } = await old.stop();
  assert.ok(failed > 0);
  const gone = Object.entries(failures).filter(([text]) => text.includes("404"));
  assert.ok(gone.length > 0, JSON.stringify(failures));
});
sticky("both clients get sessions of their own, and end them", async ({ stack, opened }) => {
  for (const generation of ["1.x", "2.x"] as const) {
    const load = { count: 3, thinkMs: 20, slowEveryMs: 100, slowSeconds: 0.1, generation };
    const counting = await startSessions(url(stack), load);
    opened.push(counting);
    const enough = async () => counting.report().sessions.every(({ calls }) => calls > 10);
    await waitFor("each session has made calls", enough, 60);
    const { failures, gaps, sessions } = await counting.stop();
    assert.equal(failures, {}, generation);
    assert.is(gaps, 0, generation);
    assert.is(new Set(sessions.map(({ id }) => id)).size, 3, generation);
    assert.is((await post(stack, sessions[0]?.id ?? "", "tools/list"))[0], 404, "its client has ended it");
  }
});
sticky.run();
