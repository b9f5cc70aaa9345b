import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { type Load, type Shot, startLoad } from "../bench/testbed/load.ts";
import { startRun, type Verb, waitForLock } from "../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../bench/testbed/scratch.ts";
import { SIGNALS } from "../lib/errors.ts";

/** The ms between the start of a step, which is the end of the previous one, and the kill. */
const INTO_STEP_MS = 30;

/** The signals that a run is killed with. */
export const KILLS = ["SIGKILL", "SIGTERM", "SIGINT"] as const;
export type Kill = (typeof KILLS)[number];

const lost = (shots: readonly Shot[]): string[] =>
  shots.flatMap(({ kind, failure }) => (failure ? [`${kind}: ${failure}`] : []));

async function assertAgreement(stack: Scratch): Promise<void> {
  const { status, color } = await stack.get();
  const link = await readlink(join(stack.folder, "nginx/active-upstream.conf"));
  assert.equal(
    { status, running: await stack.running(), marked: await stack.readStateFile(), link },
    { status: 200, running: [color], marked: `${color}\n`, link: `${color}-upstream.conf` },
  );
}

async function runToEnd(stack: Scratch, verb: Verb): Promise<string[]> {
  const run = startRun(stack, verb);
  const { exitCode, output } = await run.ended;
  assert.is(exitCode, 0, output);
  await assertAgreement(stack);
  return [...run.steps];
}

/** Kills a run after `done` of its steps. Checks that no request was lost and that the next run repairs everything. */
async function killAt(stack: Scratch, load: Load, verb: Verb, done: number, kill: Kill): Promise<void> {
  const [before, sent] = [(await stack.get()).color, load.shots.length];
  const since = Date.now();
  const run = startRun(stack, verb);
  await Promise.race([done === 0 ? waitForLock(stack, since) : run.waitForSteps(done), run.ended]);
  await sleep(INTO_STEP_MS);
  run.kill(kill);
  const { exitCode, signal, output } = await run.ended;
  const at = `${verb}, ${kill} after "${run.steps[done - 1] ?? "the lock"}"\n${output}`;

  assert.is((await stack.get()).status, 200, at);
  assert.match(await stack.readStateFile(), /^(blue|green)\n$/, at);
  if (kill !== "SIGKILL") {
    assert.is(signal, null, at);
    const stands = run.steps.some((step) => step.startsWith("mark"));
    assert.is(exitCode, output.includes(`${kill}: ending`) ? SIGNALS[kill] : 0, at);
    const { color } = await stack.get();
    assert.is(color === before, !stands, at);
    await assertAgreement(stack).catch((error) => assert.unreachable(`${error.message}\n${at}`));
  }
  assert.equal(lost(load.shots.slice(sent)), [], at);
  const next = done % 2 === 0 ? "deploy" : "rollback"; // either must be able to continue
  await runToEnd(stack, next).catch((error) =>
    assert.unreachable(`the next ${next}: ${error.message}\n${at}`),
  );
  assert.equal(lost(load.shots.slice(sent)), [], `in the next run: ${at}`);
}

/** Returns the signals for a step. */
type Kills = (step: number, name: string) => readonly Kill[];

/** Kills a deploy or rollback in each of its steps, under load, on its own stack. */
export async function killInEveryStep(verb: Verb, kills: Kills): Promise<void> {
  const stack = await createReleasedScratch(`kill-${verb}`);
  let load: Load | undefined;
  try {
    Object.assign(stack.env, { CANARY_PERCENT: "30", CANARY_SECONDS: "0.3" }); // of deploys; a rollback has none
    const steps = await runToEnd(stack, verb);
    load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, {
      clients: { post: 5, get: 5 },
      thinkMs: 50,
      patientMs: [0, 0],
    });
    for (let done = 0; done < steps.length; done++)
      for (const kill of kills(done, steps[done] ?? "")) await killAt(stack, load, verb, done, kill);
    assert.equal(lost(await load.stop()), []);
  } finally {
    await load?.stop(); // otherwise it would run forever
    await stack.remove();
  }
}

/** Kills deploys and rollbacks at the same time, each on its own stack. Throws the first failure. */
export async function killBoth(kills: Kills): Promise<void> {
  const verbs = ["deploy", "rollback"] as const;
  const results = await Promise.allSettled(verbs.map((verb) => killInEveryStep(verb, kills)));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
