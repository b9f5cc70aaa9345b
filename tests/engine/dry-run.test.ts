import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun, type Verb, waitForLock } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

/** `release`: the steps of a release from green to blue, from its build on. */
const dryRun = suite<{ stack: Scratch; release: string[] }>("--dry-run");
dryRun.before(async (context) => {
  context.stack = await createScratch("dryrun");
});
dryRun.after(({ stack }) => stack.remove());

/** Everything that a run could change: containers with their state, images, networks, and files with content and time. */
async function snapshot({ project, folder, docker }: Scratch): Promise<string> {
  const filter = ["--filter", `name=${project}`];
  const ids = (await docker("ps", "-aq", ...filter)).stdout.trim().split("\n").filter(Boolean);
  const template =
    "{{.Id}} {{.Name}} {{.State.Status}} {{.State.StartedAt}} {{.Image}} {{.HostConfig.RestartPolicy.Name}}";
  const parts = [
    ids.length > 0 ? (await docker("inspect", "--format", template, ...ids)).stdout : "",
    (await docker("images", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}", `${project}*`)).stdout,
    (await docker("network", "ls", ...filter)).stdout,
    (
      await $({
        quiet: true,
      })`cd ${folder} && find . -printf '%p %l %T@ %m\n' | sort && find . -type f -exec md5sum {} + | sort`
    ).stdout,
  ];
  return parts
    .flatMap((part) => part.split("\n"))
    .toSorted()
    .join("\n"); // docker's order varies
}

/** Makes a dry run, which must change nothing. Returns its steps and its output. */
async function planOf(
  stack: Scratch,
  verb: Verb,
  args: string[] = [],
): Promise<{ steps: string[]; text: string }> {
  const before = await snapshot(stack);
  const run = await stack[verb](["--dry-run", ...args]);
  assert.is(run.exitCode, 0, run.stdall);
  assert.is(await snapshot(stack), before);
  assert.match(run.stdout, "Dry run: nothing was changed");
  const steps = [...run.stdout.matchAll(/^\S+ would (.+)$/gm)].map(([, step]) => step ?? "");
  return { steps, text: run.stdout };
}

/** The steps before the build, and from the build on. */
function splitAtBuild(steps: string[]): [before: string[], from: string[]] {
  const build = steps.findIndex((step) => step.startsWith("build "));
  assert.ok(build >= 0, steps.join());
  return [steps.slice(0, build), steps.slice(build)];
}

/** Makes a real run. Returns its steps, without those that only inspect. */
async function stepsOf(
  stack: Scratch,
  verb: Verb,
  {
    args = [],
    env = {},
    exitCode = 0,
  }: { args?: string[]; env?: Record<string, string>; exitCode?: number } = {},
): Promise<string[]> {
  const run = await stack[verb](args, env);
  assert.is(run.exitCode, exitCode, run.stdall);
  const inspections =
    /^(read the color record|inspect |find |check (the (port|disk|memory|vault)|Docker|Compose))/;
  return [...run.stdout.matchAll(/✓ (.+) \(/g)]
    .map(([, step]) => step ?? "")
    .filter((step) => !inspections.test(step));
}

dryRun(
  "on an empty machine, a dry run prints the steps and commands of the first release in order",
  async ({ stack }) => {
    const { steps, text } = await planOf(stack, "deploy");
    const project = stack.project;
    for (const command of [
      /compose -p \S+ .* build loop-api-green/,
      /compose .* up -d --no-deps --no-build --pull never --force-recreate --renew-anon-volumes loop-api-green/,
      `ln -sfn green-upstream-sessions.conf ${stack.folder}/nginx/active-upstream.conf`,
      `exec ${project}-nginx sh -c 'nginx -t -q -c /etc/nginx/nginx-blue-green.conf && kill -HUP 1'`,
      `write green to ${stack.stateDir}/active-color and ${stack.stateFile}`,
      `stop ${project}-api-blue`,
    ]) {
      assert.match(text, command);
    }
    assert.equal(await stepsOf(stack, "deploy"), steps);
  },
);

dryRun("a dry run prints the steps that the real deploy or rollback then takes", async (context) => {
  const { stack } = context;
  for (const verb of ["deploy", "rollback"] as const) {
    const { steps } = await planOf(stack, verb);
    assert.ok(steps.length > 5, steps.join());
    assert.equal(await stepsOf(stack, verb), steps);
    if (verb === "deploy") [, context.release] = splitAtBuild(steps);
  }
});

dryRun(
  "with both colors running, an interrupted run or a stopped nginx, a dry run prints the repair but makes none",
  async ({ stack, release }) => {
    await stack.docker("start", `${stack.project}-api-blue`); // green serves
    const args = ["--keep", "serving"];
    const both = await planOf(stack, "deploy", args);
    const [repair, rest] = splitAtBuild(both.steps);
    assert.ok(repair.includes("stop blue"), both.text);
    assert.equal(rest, release);
    const unbuildable = { LOOP_API_CONTEXT: join(ROOT, "docs") }; // no Dockerfile
    const steps = await stepsOf(stack, "deploy", { args, env: unbuildable, exitCode: 1 });
    assert.equal(steps.slice(0, repair.length), repair);

    const since = Date.now();
    const run = startRun(stack, "rollback", { VERIFY_SECONDS: "20" });
    await waitForLock(stack, since);
    await run.waitForStep("switch");
    run.kill("SIGKILL");
    await run.ended;
    const afterKill = await planOf(stack, "rollback");
    assert.ok(afterKill.steps.includes("clear the record of the interrupted run"), afterKill.text);
    assert.equal(await stepsOf(stack, "rollback"), afterKill.steps);

    await stack.docker("stop", "--time", "1", stack.nginxContainer);
    const stopped = await planOf(stack, "deploy");
    assert.ok(stopped.steps.includes(`start ${stack.nginxContainer}`), stopped.text);
    assert.match(stopped.text, `${stack.nginxContainer} does not run`);
    assert.not.match(stopped.text, "starting it");
  },
);

dryRun("a dry run rejects what a real run would reject", async ({ stack }) => {
  const run = await stack.deploy(["--dry-run"], { NGINX_PORT: "1" });
  assert.is(run.exitCode, 2);
  assert.match(
    run.stderr,
    `NGINX_PORT is 1, but ${stack.nginxContainer} was created with ${stack.env.NGINX_PORT}`,
  );
});
dryRun.run();
