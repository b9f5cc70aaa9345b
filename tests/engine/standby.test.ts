import * as assert from "uvu/assert";
import { startLoad } from "../../bench/testbed/load.ts";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { Status } from "../../lib/release/status-report.ts";
import { suite } from "../suite.ts";

const standby = suite<{ stack: Scratch; url: string }>("a paused standby");
standby.before(async (context) => {
  context.stack = await createScratch("standby");
  Object.assign(context.stack.env, { STANDBY: "paused", DRAIN_SECONDS: "20" });
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
  for (let i = 1; i <= 2; i++) {
    const run = await context.stack.deploy([], await context.stack.apiVersion(`${i}.0.0`));
    assert.is(run.exitCode, 0, run.stdall);
  }
});
standby.after(({ stack }) => stack.remove());

const states = async (stack: Scratch) => [
  await stack.containerStatus("blue"),
  await stack.containerStatus("green"),
];

standby("the previous color is paused and counts as being on standby", async ({ stack }) => {
  assert.equal(await states(stack), ["running", "paused"]);
  const { stdout, exitCode } = await stack.status(["--json"]);
  const { drift, colors } = Status.parse(JSON.parse(stdout));
  assert.equal([exitCode, drift, colors.green.container], [0, [], "paused"]);
});

standby(
  "a rollback to a paused color does not restart it, loses no request, and verifies after the switch",
  async ({ stack, url }) => {
    const load = startLoad(url, { clients: { post: 5, get: 5 }, thinkMs: 50, patientMs: [0, 0] });
    try {
      const startTime = () => stack.field(`${stack.project}-api-green`, "{{.State.StartedAt}}");
      const before = await startTime();
      const run = startRun(stack, "rollback", { VERIFY_SECONDS: "3" });
      const since = performance.now();
      while ((await stack.get()).color !== "green") assert.ok(performance.now() - since < 30_000);
      assert.not.ok(
        run.steps.includes("verify green through nginx"),
        "the switch waited for the verification",
      );
      const { exitCode, output } = await run.ended;
      assert.is(exitCode, 0, output);
      assert.match(output, "✓ pause blue");
      assert.is(await startTime(), before, "green was restarted");
      assert.ok(run.steps.includes("verify green through nginx"));
      assert.equal(
        (await load.stop()).filter(({ failure }) => failure),
        [],
      );
      assert.equal(await states(stack), ["paused", "running"]);
      assert.is(JSON.parse((await stack.get()).body).version, "1.0.0");
    } finally {
      await load.stop(); // otherwise a failed test would never end
    }
  },
);

standby("a deploy replaces the paused color, whose container ends by itself", async ({ stack }) => {
  const paused = await stack.field(`${stack.project}-api-blue`, "{{.Id}}");
  const since = Date.now();
  const run = await stack.deploy([], await stack.apiVersion("3.0.0"));
  assert.is(run.exitCode, 0, run.stdall);
  const span = [since, Date.now()].map((ms) => (ms / 1000).toFixed(3));
  const filters = ["--filter", `container=${paused}`, "--filter", "event=die"];
  const format = ["--format", "{{.Actor.Attributes.exitCode}}"];
  const args = ["--since", span[0] ?? "", "--until", span[1] ?? "", ...filters, ...format];
  // Docker would kill a container that stays paused, after its grace period: 137.
  assert.is((await stack.docker("events", ...args)).stdout.trim(), "0");
  assert.is(JSON.parse((await stack.get()).body).version, "3.0.0");
  assert.equal(await states(stack), ["running", "paused"]);
});

standby(
  "a paused color that a restart has resumed is paused again by the next run without a prompt",
  async ({ stack }) => {
    await stack.docker("unpause", `${stack.project}-api-green`);
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(
      run.stderr,
      "green runs beside blue: it was probably paused, and then started by a restart of Docker",
    );
    assert.equal(await states(stack), ["paused", "running"]);
  },
);

standby("after a change to STANDBY=stopped, a rollback to a paused color still works", async ({ stack }) => {
  const run = await stack.rollback([], { STANDBY: "stopped" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.equal(await states(stack), ["running", "exited"]);
});

standby("the build of a killed release is stopped, not paused", async ({ stack }) => {
  const killed = startRun(stack, "deploy", await stack.apiVersion("4.0.0"));
  await killed.waitForStep("check the health of green");
  killed.kill("SIGKILL");
  await killed.ended;
  const next = await stack.rollback(["--to", "3"]); // which serves
  assert.is(next.exitCode, 0, next.stdall);
  assert.match(next.stdout, "✓ stop green");
  assert.equal(await states(stack), ["running", "exited"]);
});
standby.run();
