import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun, type Verb, waitForLock } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";

const dryRun = suite<{ stack: Scratch }>("--dry-run");
dryRun.before(async (context) => {
  context.stack = await createScratch("dryrun");
});
dryRun.after(({ stack }) => stack.remove());

/** All that a run could change: containers with their state, images, networks, and every file with its content and time. */
async function everything({ project, folder, docker }: Scratch): Promise<string> {
  const ours = ["--filter", `name=${project}`];
  const ids = (await docker("ps", "-aq", ...ours)).stdout.trim().split("\n").filter(Boolean);
  const template =
    "{{.Id}} {{.Name}} {{.State.Status}} {{.State.StartedAt}} {{.Image}} {{.HostConfig.RestartPolicy.Name}}";
  const parts = [
    ids.length > 0 ? (await docker("inspect", "--format", template, ...ids)).stdout : "",
    (await docker("images", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}", `${project}*`)).stdout,
    (await docker("network", "ls", ...ours)).stdout,
    (
      await $({
        quiet: true,
      })`cd ${folder} && find . -printf '%p %l %T@ %m\n' | sort && find . -type f -exec md5sum {} + | sort`
    ).stdout,
  ];
  return parts
    .flatMap((part) => part.split("\n"))
    .toSorted()
    .join("\n"); // docker lists equals in any order
}

/** What a dry run tells, as the names of its steps; it must change nothing. */
async function told(
  stack: Scratch,
  verb: Verb,
  args: string[] = [],
): Promise<{ steps: string[]; text: string }> {
  const before = await everything(stack);
  const run = await stack[verb](["--dry-run", ...args]);
  assert.is(run.exitCode, 0, run.stdall);
  assert.is(await everything(stack), before);
  assert.match(run.stdout, "Dry run: nothing was changed");
  const steps = [...run.stdout.matchAll(/^\S+ would (.+)$/gm)].map(([, step]) => step ?? "");
  return { steps, text: run.stdout };
}

/** What a real run does then must be what was told; what it only looks at does not count. */
async function done(stack: Scratch, verb: Verb, args: string[] = []): Promise<string[]> {
  const run = await stack[verb](args);
  assert.is(run.exitCode, 0, run.stdall);
  const looks = /^(read the state|inspect |find |check (the (port|disk|memory|vault)|Docker|Compose))/;
  return [...run.stdout.matchAll(/✓ (.+) \(/g)]
    .map(([, step]) => step ?? "")
    .filter((step) => !looks.test(step));
}

dryRun("on an empty machine: the first release, in order, with its commands", async ({ stack }) => {
  const { steps, text } = await told(stack, "deploy");
  const project = stack.project;
  for (const command of [
    /compose -p \S+ .* build loop-api-green/,
    /compose .* up -d --no-deps --no-build --pull never --force-recreate loop-api-green/,
    `ln -sfn green-upstream.conf ${stack.folder}/nginx/active-upstream.conf`,
    `exec ${project}-nginx sh -c 'nginx -t -q -c /etc/nginx/nginx-blue-green.conf && kill -HUP 1'`,
    `write green to ${stack.stateDir}/active-color and ${stack.stateFile}`,
    `stop ${project}-api-blue`,
  ]) {
    assert.match(text, command);
  }
  assert.equal(await done(stack, "deploy"), steps);
});

dryRun("of a release and of a rollback: what is told is what is done then", async ({ stack }) => {
  for (const verb of ["deploy", "rollback", "deploy"] as const) {
    const { steps } = await told(stack, verb);
    assert.ok(steps.length > 5, steps.join());
    assert.equal(await done(stack, verb), steps);
  }
});

dryRun(
  "with both running, nginx stopped, or a run cut off: nothing is settled, but told",
  async ({ stack }) => {
    await stack.compose("--profile", "green", "up", "-d", "--no-recreate", "loop-api-green", "loop-api-blue");
    const both = await told(stack, "deploy", ["--keep", "serving"]);
    assert.equal(await done(stack, "deploy", ["--keep", "serving"]), both.steps);

    const since = Date.now();
    const run = startRun(stack, "rollback", { VERIFY_SECONDS: "20" });
    await waitForLock(stack, since);
    await run.waitForStep("switch");
    run.kill("SIGKILL");
    await run.ended;
    const cutOff = await told(stack, "rollback");
    assert.ok(cutOff.steps.includes("clear the record of the interrupted run"), cutOff.text);
    assert.equal(await done(stack, "rollback"), cutOff.steps);

    await stack.docker("stop", "--time", "1", stack.nginxContainer);
    const stopped = await told(stack, "deploy");
    assert.ok(stopped.steps.includes(`start ${stack.nginxContainer}`), stopped.text);
  },
);

dryRun("what a real run would refuse, a dry run refuses", async ({ stack }) => {
  const run = await stack.deploy(["--dry-run"], { NGINX_PORT: "1" });
  assert.is(run.exitCode, 2);
  assert.match(
    run.stderr,
    `NGINX_PORT is 1, but ${stack.nginxContainer} was created with ${stack.env.NGINX_PORT}`,
  );
});
dryRun.run();
