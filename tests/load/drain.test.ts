import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { startLoad } from "../../bench/testbed/load.ts";
import { type Run, startRun } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import type { Color } from "../../lib/color.ts";
import { callTool } from "../call-tool.ts";
import { suite } from "../suite.ts";
import { losses } from "../switches.ts";

const drain = suite<{ stack: Scratch; url: string }>("drain under load");
drain.before(async (context) => {
  context.stack = await createReleasedScratch("drain", {
    API_IDLE_SECONDS: "2",
    VERIFY_SECONDS: "0",
    DRAIN_SECONDS: "20",
  });
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
drain.after(({ stack }) => stack.remove());

/** Starts a rollback. Returns the run once the new color is starting, so that requests sent now are still open at the switch. */
async function startRollback(stack: Scratch, env: Record<string, string> = {}): Promise<Run> {
  const run = startRun(stack, "rollback", env);
  await run.waitForStep("start ");
  return run;
}

/**
 * Runs a rollback, and calls `beforeSwitch` during it. Returns its output and two times in ms: when an old
 * worker was last seen, and when the stop of the previous color began.
 */
async function watchRollback(
  stack: Scratch,
  previous: Color,
  beforeSwitch: () => void,
): Promise<{ output: string; lastSeen: number; stopped: number }> {
  const since = Date.now() / 1000;
  // Polls inside a single `docker exec`: each one takes as much CPU time as a hundred requests.
  const looks = `rm -f /tmp/over /tmp/seen
  until [ -e /tmp/over ]; do
    now=$(date +%s%3N)
    grep -qs '[s]hutting down' /proc/[0-9]*/cmdline && echo "$now" >/tmp/seen
    sleep 0.02
  done
  cat /tmp/seen`;
  const inNginx = (command: string) => stack.docker("exec", stack.nginxContainer, "sh", "-c", command);
  const watching = inNginx(looks);
  const run = await startRollback(stack);
  beforeSwitch();
  const { exitCode, output } = await run.ended;
  await inNginx(": >/tmp/over");
  const lastSeen = Number((await watching).stdout);
  assert.is(exitCode, 0, output);
  const filters = ["--filter", `container=${stack.project}-api-${previous}`, "--filter", "event=kill"];
  const span = ["--since", since.toFixed(3), "--until", (Date.now() / 1000).toFixed(3)];
  const events = await stack.docker("events", ...span, ...filters, "--format", "{{.TimeNano}}");
  return { output, lastSeen, stopped: Number(events.stdout.split("\n")[0]) / 1e6 };
}

drain(
  "slow calls, and connections that idle for 9 s, survive a switch; the previous color is stopped only after them, whatever else runs in nginx's container",
  async ({ stack, url }) => {
    const load = startLoad(url, { clients: { patient: 20 }, thinkMs: 0, patientMs: [8500, 9000] });
    await sleep(500); // each patient client has sent one request and idles
    // Short-lived processes must not end the drain early.
    const churn =
      "end=$(($(date +%s) + 8)); while [ $(date +%s) -lt $end ]; do sh -c : & sh -c : & wait; done";
    let [slow, churning]: Promise<unknown>[] = [];
    const watched = await watchRollback(stack, "blue", () => {
      slow = callTool(url, "slow", { seconds: 7 }).then(
        async ({ statusCode, body }) => `${statusCode} ${await body.text()}`,
        (error) => `lost: ${error}`,
      );
      churning = stack.docker("exec", stack.nginxContainer, "sh", "-c", churn);
    }).finally(() => load.stop()); // otherwise it would run forever
    await churning;
    const { output, lastSeen, stopped } = watched;
    assert.not.match(output, "still open");
    assert.match(String(await slow), /^200 .*blue waited 7/);
    assert.equal(losses(load.shots), {});
    assert.ok(lastSeen > 0, "no old worker was ever seen");
    assert.ok(
      stopped > lastSeen,
      `the stop of blue began ${lastSeen - stopped} ms before an old worker was last seen`,
    );
  },
);

drain("a drain ignores idle connections to the previous color", async ({ stack, url }) => {
  const before = (await stack.get()).color;
  const env = { API_IDLE_SECONDS: "60", DRAIN_SECONDS: "3" };
  const load = startLoad(url, { clients: { get: 10 }, thinkMs: 20, patientMs: [0, 0] }); // leaves nginx with idle connections to the previous color
  await sleep(500);
  const run = await startRollback(stack, env);
  const open = Promise.allSettled(
    [1, 2].map(async () => (await callTool(url, "slow", { seconds: 9 })).body.text()),
  );
  // Through a new worker, to the draining color. Ends before the drain counts, which would count an open probe too.
  const probing = run.waitForStep("mark").then(async () => {
    for (const until = performance.now() + 2700; performance.now() < until; await sleep(100))
      await stack.get(`/_loop/${before}/health`);
  });
  const [{ exitCode, output }] = await Promise.all([run.ended, probing, open]).finally(() => load.stop());
  assert.is(exitCode, 0, output);
  assert.ok(output.includes(`requests to ${before} still open after 3 s: 2;`), output);
  assert.equal(losses(load.shots), {});

  const quiet = await stack.rollback([], env);
  assert.is(quiet.exitCode, 0, quiet.stdall);
  assert.not.match(quiet.stderr, "still open");
});

drain.run();
