import { chmod, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { readHistory } from "../../lib/run/history.ts";
import { suite } from "../suite.ts";

const HOOKS = ["pre-build", "pre-switch", "post-deploy", "post-rollback", "on-failure"];

/** What each hook and the smoke test append to the file `calls`. */
const CALL = '"$LOOP_VERB $LOOP_COLOR $LOOP_URL $LOOP_IMAGE $LOOP_PREVIOUS_URL $LOOP_RESULT"';

const commands = suite<{ stack: Scratch; hooks: string; smoke: string }>("smoke test and hooks");
commands.before(async (context) => {
  const stack = await createScratch("commands");
  const hooks = join(stack.folder, "hooks");
  await mkdir(hooks, { mode: 0o755 });
  for (const hook of HOOKS) {
    const script = `echo ${hook} ${CALL} >>${stack.folder}/calls\n[ "$FAIL" != ${hook} ]`;
    await writeFile(join(hooks, hook), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  const get =
    'fetch(process.env.LOOP_URL + "/health").then(async (answer) => console.log(await answer.text()))';
  const smoke = `echo smoke ${CALL} >>${stack.folder}/calls; node -e '${get}'`;
  Object.assign(context, { stack, hooks, smoke });
});
commands.after(({ stack }) => stack.remove());

/** The calls of hooks and smoke tests since the last look. */
async function calls({ folder }: Scratch): Promise<string[]> {
  const file = join(folder, "calls");
  const lines = (await readFile(file, "utf8").catch(() => "")).trim().split("\n").filter(Boolean);
  await rm(file, { force: true });
  return lines.map((line) => line.trim());
}

/** What a command of a run to `to` learns of it. */
function callOf({ env, project }: Scratch, command: string, verb: string, to: string, previous = ""): string {
  const url = (color: string) => `http://127.0.0.1:${env[`${color.toUpperCase()}_PORT`]}`;
  const known = [command, verb, to, url(to), `${project}-api:${to}`, previous && url(previous)];
  return known.join(" ").trim();
}

commands(
  "a release runs them in order, each with what is known of the run",
  async ({ stack, hooks, smoke }) => {
    const settings = { HOOKS_PATH: hooks, SMOKE_COMMAND: smoke, FAIL: "post-deploy" };
    const plan = await stack.deploy(["--dry-run"], settings);
    assert.is(plan.exitCode, 0, plan.stdall);
    for (const line of [
      "run the hook pre-build",
      `${hooks}/pre-build`,
      "run the smoke test",
      "/bin/sh -c 'echo smoke",
    ])
      assert.match(plan.stdout, line);
    assert.equal(await calls(stack), [], "the dry run has run one");

    const run = await stack.deploy([], settings);
    assert.is(run.exitCode, 0, run.stdall);
    const names = ["pre-build", "smoke", "pre-switch", "post-deploy"];
    assert.equal(
      await calls(stack),
      names.map((name) => callOf(stack, name, "deploy", "green")),
    );
    assert.match(run.stdout, /Z {3}\{"status":"healthy",.*"color":"green"/, "the output of the smoke test");
    assert.match(run.stderr, "Warning: the hook post-deploy failed: exit code 1");
    const [entry] = await readHistory(join(stack.stateDir, "history.jsonl"));
    assert.is(entry?.result, "done");
    assert.ok(entry?.steps?.["run the smoke test"] !== undefined);
  },
);

commands("a failed smoke test moves no traffic and discards the new build", async ({ stack, hooks }) => {
  const failing = `echo smoke ${CALL} >>${stack.folder}/calls; echo wrong answer >&2; exit 7`;
  const run = await stack.deploy([], { HOOKS_PATH: hooks, SMOKE_COMMAND: failing });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(
    run.stderr,
    /Error: Smoke test failed\n.*exit code 7; the last lines of its output:\n.*wrong answer/,
  );
  assert.equal([await stack.running(), (await stack.get()).color], [["green"], "green"]);
  assert.is(await stack.field(`${stack.project}-api:blue`, "{{.Id}}"), "absent", "its build is still tagged");
  const expected = ["pre-build", "smoke", "on-failure"].map((name) =>
    callOf(stack, name, "deploy", "blue", "green"),
  );
  expected[2] += " SmokeError";
  assert.equal(await calls(stack), expected);
});

commands(
  "the next run repairs what a run that was killed in its smoke test left; without the settings, nothing of them is in its output",
  async ({ stack, hooks }) => {
    const started = join(stack.folder, "started");
    const run = startRun(stack, "deploy", { SMOKE_COMMAND: `echo $$ >${started}; sleep 300` });
    await waitFor("the smoke test runs", async () => (await readFile(started, "utf8")) !== "", 60);

    const second = await stack.deploy([], { HOOKS_PATH: hooks });
    assert.is(second.exitCode, 4, second.stdall);
    run.kill("SIGKILL");
    await run.ended;
    const pid = (await readFile(started, "utf8")).trim();
    await waitFor("the smoke test ends", async () => {
      const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return command === "";
    });
    assert.equal(await calls(stack), [], "a run that did not begin has not failed");

    const next = await stack.deploy();
    assert.is(next.exitCode, 0, next.stdall);
    assert.match(next.stdall, "was killed before it finished: repairing what it left");
    assert.equal([await stack.running(), (await stack.get()).color], [["blue"], "blue"]);
    assert.not.match(next.stdall, /run the hook|check the hooks|smoke/);
    assert.equal(await calls(stack), []);
  },
);

commands("a hook can stop a rollback, which has no smoke test", async ({ stack, hooks }) => {
  const settings = { HOOKS_PATH: hooks, SMOKE_COMMAND: "exit 1" };
  const stopped = await stack.rollback([], { ...settings, FAIL: "pre-switch" });
  assert.is(stopped.exitCode, 1, stopped.stdall);
  assert.match(stopped.stderr, "Error: Hook pre-switch failed");
  assert.equal([await stack.running(), (await stack.get()).color], [["blue"], "blue"]);
  const failed = `${callOf(stack, "on-failure", "rollback", "green", "blue")} HookError`;
  assert.equal(await calls(stack), [callOf(stack, "pre-switch", "rollback", "green", "blue"), failed]);

  const done = await stack.rollback([], settings);
  assert.is(done.exitCode, 0, done.stdall);
  assert.equal(
    await calls(stack),
    ["pre-switch", "post-rollback"].map((name) => callOf(stack, name, "rollback", "green", "blue")),
  );
});

commands("a wrong hook is a usage error", async ({ stack, hooks }) => {
  await chmod(join(hooks, "pre-switch"), 0o644);
  const refused = await stack.deploy([], { HOOKS_PATH: hooks });
  assert.is(refused.exitCode, 2, refused.stdall);
  assert.equal(await calls(stack), [], "on-failure ran");
});
commands.run();
