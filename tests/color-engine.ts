import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { type Scratch, waitFor } from "../bench/testbed/scratch.ts";
import { type Color, getInactiveColor, isColor } from "../lib/color.ts";
import type { Output } from "../lib/docker/cli.ts";
import type { Container } from "../lib/docker/container.ts";
import { imageOf } from "../lib/docker/names.ts";
import { recentLogs } from "../lib/engine/colors.ts";
import { engineOf } from "../lib/engine/engine.ts";
import { type Context, readOnlyContext } from "../lib/run/context.ts";
import { createLog } from "../lib/run/log.ts";
import { loadSettings } from "../lib/settings.ts";

const succeed = (output: Output): void => assert.is(output.exitCode, 0, output.stdall);

/**
 * Checks what release logic expects of every engine that runs colors. Uses the idle color of a stack that serves, and leaves it
 * running. Returns that color, and the context that it used. Call it where the color's own port is reachable.
 */
export async function checkColorEngine(
  stack: Scratch,
  images: readonly [string, string],
): Promise<[Context, Color]> {
  const settings = loadSettings(stack.env, "/nonexistent/.env.blue-green");
  const dry = readOnlyContext(settings, createLog({ quiet: true }));
  const context: Context = { ...dry, options: { ...dry.options, dryRun: false } };
  const engine = engineOf(context);
  const { color: active } = await stack.get();
  assert.ok(isColor(active), active);
  const color: Color = getInactiveColor(active);

  const look = async (): Promise<Container> => (await engine.inspectColors(context))[color];
  const tag = async (image: string): Promise<string> => {
    succeed(await stack.docker("tag", image, imageOf(settings, color)));
    return (await stack.field(image, "{{.Id}}")).trim();
  };
  const becomes = (healthy: boolean): Promise<void> =>
    waitFor(
      `${color} is ${healthy ? "" : "not "}healthy`,
      async () => (await engine.probe(context, color, settings.api, 1)).healthy === healthy,
      60,
    );

  const first = await tag(images[0]);
  succeed(await engine.recreate(context, color, await look(), settings.api));
  await becomes(true);
  const created = await look();
  assert.equal(
    { ...created.api, status: created.status, image: created.image, discarded: created.discarded },
    { ...settings.api, status: "running", image: first, discarded: false },
  );
  assert.ok(created.addresses.length > 0, "nginx would not find it");
  assert.ok(created.startedMs > Date.now() - 60_000 && created.startedMs < Date.now() + 1000);
  assert.ok(engine.canStart(context, color, created));
  await waitFor("its log can be read", async () => (await recentLogs(context, color, 50)).trim().length > 0);

  succeed(await engine.stop(context, color, 3));
  await becomes(false);
  assert.is((await look()).status, "exited");
  succeed(await engine.stop(context, color)); // as the run after one that was killed

  succeed(await engine.start(context, color, await look()));
  await becomes(true);
  assert.equal([(await look()).status, (await look()).image], ["running", first]);

  const running = await look();
  succeed(await engine.pause(context, color));
  await sleep(1500);
  const paused = await look();
  assert.is(paused.status, "paused");
  assert.equal(paused.addresses.toSorted(), running.addresses.toSorted(), "nothing was restarted");
  succeed(await engine.start(context, color, paused));
  await becomes(true);
  assert.is((await look()).status, "running");

  succeed(await engine.stop(context, color, 3));
  succeed(await engine.discard(context, color));
  assert.is((await look()).discarded, true);

  const second = await tag(images[1]);
  assert.is.not(second, first);
  succeed(await engine.recreate(context, color, await look(), settings.api));
  await becomes(true);
  const recreated = await look();
  assert.equal([recreated.image, recreated.discarded], [second, false]);
  assert.is(
    (await engine.inspectColors(context))[active].status,
    "running",
    "the other color was not touched",
  );
  return [context, color];
}
