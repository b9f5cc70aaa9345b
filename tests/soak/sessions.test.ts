import { test } from "uvu";
import * as assert from "uvu/assert";
import { createScratch } from "../../bench/testbed/scratch.ts";
import { startSessions } from "../../bench/testbed/sessions.ts";
import { expectIntact, killRollback } from "../session-kills.ts";

test("ten sessions with listening streams survive ten deploys and rollbacks", async () => {
  const stack = await createScratch("many-sessions");
  try {
    Object.assign(stack.env, { DRAIN_SECONDS: "20" }, await stack.sessionApi());
    for (let i = 0; i < 2; i++) assert.is((await stack.deploy()).exitCode, 0);
    const sessions = await startSessions(`http://127.0.0.1:${stack.env.NGINX_PORT}`, {
      count: 10,
      thinkMs: 200,
    });
    for (let i = 0; i < 5; i++) {
      for (const run of [await stack.deploy(), await stack.rollback()])
        assert.is(run.exitCode, 0, run.stdall);
    }
    const { calls, failures, broken, gaps, streamErrors } = await sessions.stop();
    console.log(`${calls} calls in ten sessions; lost listening streams: ${JSON.stringify(streamErrors)}`);
    assert.equal({ failures, broken, gaps }, { failures: {}, broken: 0, gaps: 0 });
    for (const { id, colors } of sessions.report().sessions) assert.equal(colors, ["blue"], id);
  } finally {
    await stack.remove();
  }
});

/** Every step of a rollback that may be under way while both colors serve sessions, with its signal. */
const KILLS = [
  ["find the active color", "SIGTERM"],
  ["inspect", "SIGKILL"],
  ["start", "SIGKILL"],
  ["check the health", "SIGTERM"],
  ["check the health", "SIGKILL"],
  ["switch", "SIGKILL"],
  ["switch", "SIGTERM"],
  ["verify", "SIGKILL"],
  ["mark", "SIGKILL"],
  ["mark", "SIGTERM"],
  ["drain", "SIGKILL"],
  ["look for sessions", "SIGKILL"],
] as const;

test("a rollback that ends in any step loses no session of either color", async () => {
  const stack = await createScratch("kill-sessions");
  const url = `http://127.0.0.1:${stack.env.NGINX_PORT}`;
  const open = () => startSessions(url, { count: 3, thinkMs: 50, slowSeconds: 0.5, listen: false });
  try {
    Object.assign(stack.env, { DRAIN_SECONDS: "20" }, await stack.sessionApi());
    for (let i = 0; i < 2; i++) assert.is((await stack.deploy()).exitCode, 0);
    const old = await open();
    assert.is((await stack.rollback()).exitCode, 0);
    const current = await open();
    for (const [step, signal] of KILLS) {
      await killRollback(stack, step, signal);
      for (const [sessions, color] of [
        [old, "blue"],
        [current, "green"],
      ] as const)
        assert.equal(
          { ...sessions.report().failures, color: sessions.report().sessions.map(({ colors }) => colors) },
          { color: sessions.report().sessions.map(() => [color]) },
          `${signal} after ${step}`,
        );
    }
    expectIntact(await old.stop(), "blue");
    expectIntact(await current.stop(), "green");
  } finally {
    await stack.remove();
  }
});
test.run();
