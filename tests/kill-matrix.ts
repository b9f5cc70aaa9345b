import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { type Load, type Shot, startLoad } from "../bench/testbed/load.ts";
import { type Run, startRun, type Verb, waitForLock } from "../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../bench/testbed/scratch.ts";
import { SIGNALS } from "../lib/errors.ts";

/** The ms between the start of a step, which is the end of the previous one, and the kill. */
const INTO_STEP_MS = 30;

/** A step of a deploy or rollback that nothing interrupts. */
export interface Step {
  verb: Verb;
  /** The number of steps before it. */
  index: number;
  name: string;
  /** The run is past its mark, so a signal must not undo it. */
  stands: boolean;
}

/** A signal that ends a run cleanly; or SIGKILL, and the verb of the run that repairs what it leaves. */
export type Kill = "SIGTERM" | "SIGINT" | { repairedBy: Verb };

/** Returns the kills of a step. */
type Kills = (step: Step) => readonly Kill[];

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

/** Waits for the end of a run that must be complete, and checks that everything agrees. */
async function assertComplete(stack: Scratch, run: Run, code = 0): Promise<void> {
  const { exitCode, output } = await run.ended;
  assert.is(exitCode, code, output);
  await assertAgreement(stack).catch((error) => assert.unreachable(`${error.message}\n${output}`));
}

/** When one of these steps is done, `endDespiteSignals` sends a signal, so it meets the next: drain, stop, and what a deploy does then. */
const BEFORE_SIGNALS: Record<Verb, readonly string[]> = {
  deploy: ["mark", "look for sessions", "stop", "keep the release"],
  rollback: ["mark", "look for sessions"],
};

/** Makes a run that gets a signal in each of its last steps, and must still be completed. Returns all steps. */
async function endDespiteSignals(stack: Scratch, verb: Verb): Promise<Step[]> {
  const before = (await stack.get()).color;
  const run = startRun(stack, verb);
  for (const [i, step] of BEFORE_SIGNALS[verb].entries()) {
    await run.waitForStep(step);
    run.kill(i % 2 === 0 ? "SIGTERM" : "SIGINT");
  }
  await assertComplete(stack, run, SIGNALS.SIGTERM); // of the first signal
  assert.is.not((await stack.get()).color, before);
  const mark = run.steps.findIndex((name) => name.startsWith("mark"));
  return run.steps.map((name, index) => ({ verb, index, name, stands: index > mark }));
}

const withoutColor = (name = ""): string => name.replace(/blue|green/g, "a color");

/**
 * Kills a run in a step. Checks that it got there from what the run before it left, that no request was lost, and that
 * everything agrees: after SIGTERM and SIGINT at once, after SIGKILL once another run has repaired the rest.
 */
async function killIn(stack: Scratch, load: Load, steps: readonly Step[], step: Step, kill: Kill) {
  const signal = typeof kill === "string" ? kill : "SIGKILL";
  const [before, sent] = [(await stack.get()).color, load.shots.length];
  const since = Date.now();
  const run = startRun(stack, step.verb);
  await Promise.race([
    step.index === 0 ? waitForLock(stack, since) : run.waitForSteps(step.index),
    run.ended,
  ]);
  await sleep(INTO_STEP_MS);
  run.kill(signal);
  const { exitCode, signal: endedBy, output } = await run.ended;
  const at = `${step.verb}, ${signal} in "${step.name}"\n${output}`;

  const previous = steps[step.index - 1]?.name;
  assert.is(withoutColor(run.steps[step.index - 1]), withoutColor(previous), `the step before: ${at}`);
  assert.is((await stack.get()).status, 200, at);
  assert.match(await stack.readStateFile(), /^(blue|green)\n$/, at);
  if (typeof kill === "string") {
    assert.is(endedBy, null, at);
    const stands = run.steps.some((name) => name.startsWith("mark"));
    assert.is(exitCode, output.includes(`${kill}: ending`) ? SIGNALS[kill] : 0, at);
    const { color } = await stack.get();
    assert.is(color === before, !stands, at);
    await assertAgreement(stack).catch((error) => assert.unreachable(`${error.message}\n${at}`));
  }
  assert.ok(load.shots.length > sent, `no request was sent: ${at}`);
  assert.equal(lost(load.shots.slice(sent)), [], at);
  if (typeof kill === "string") return;
  await assertComplete(stack, startRun(stack, kill.repairedBy)).catch((error) =>
    assert.unreachable(`the next ${kill.repairedBy}: ${error.message}\n${at}`),
  );
  assert.equal(lost(load.shots.slice(sent)), [], `in the next run: ${at}`);
}

/** Kills a deploy or rollback in its steps, under load, on its own stack. */
async function killInSteps(verb: Verb, kills: Kills, thinkMs: number): Promise<void> {
  const stack = await createReleasedScratch(`kill-${verb}`);
  let load: Load | undefined;
  try {
    Object.assign(stack.env, { CANARY_PERCENT: "30", CANARY_SECONDS: "0.3" }); // of deploys; a rollback has none
    load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, {
      clients: { post: 5, get: 5 },
      thinkMs,
      patientMs: [0, 0],
    });
    const steps = await endDespiteSignals(stack, verb);
    for (const step of steps) for (const kill of kills(step)) await killIn(stack, load, steps, step, kill);
    assert.equal(lost(await load.stop()), []);
  } finally {
    await load?.stop(); // otherwise it would run forever
    await stack.remove();
  }
}

/**
 * Kills deploys and rollbacks at the same time, each on its own stack, where ten clients pause for `thinkMs` between requests.
 * Throws the first failure.
 */
export async function killBoth(kills: Kills, thinkMs: number): Promise<void> {
  const verbs = ["deploy", "rollback"] as const;
  const results = await Promise.allSettled(verbs.map((verb) => killInSteps(verb, kills, thinkMs)));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
