import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/killed.ts";
import { createReleased, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { getInactiveColor, isColor } from "../../lib/color.ts";
import { suite } from "../suite.ts";

/** What a rollback does without, and a build that would keep it waiting. */
const wayBack = suite<{ stack: Scratch }>("the way back");
wayBack.before(async (context) => {
  context.stack = await createReleased("wayback", {});
});
wayBack.after(({ stack }) => stack.remove());

/** Rolls back from the color that is marked, with these settings; the other one must serve then. */
async function goesBack(stack: Scratch, env: Record<string, string> = {}): Promise<string> {
  const color = (await stack.marked()).trim();
  const run = await stack.rollback([], env);
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await stack.front()).color, color === "blue" ? "green" : "blue", run.stdall);
  return run.stdall;
}

/** A compose file that is not there, beside the one that is: nginx's folder is found from it. */
const noCompose = ({ folder }: Scratch) => ({ COMPOSE_FILE: join(folder, "gone.yml") });

wayBack("does without the compose file; a deploy says that it is missing", async ({ stack }) => {
  await goesBack(stack, noCompose(stack));
  const deploy = await stack.deploy([], noCompose(stack));
  assert.is(deploy.exitCode, 2, deploy.stdall);
  assert.match(deploy.stderr, "gone.yml, which does not exist");
});

wayBack("starts an nginx and an auth that were stopped, without Compose", async ({ stack }) => {
  const auth = `${stack.project}-auth`;
  await stack.docker("stop", "--time", "1", stack.nginxContainer, auth);
  const output = await goesBack(stack, noCompose(stack));
  assert.match(output, `start ${stack.nginxContainer}`);
  assert.is(await stack.field(auth, "{{.State.Status}}"), "running");
});

wayBack("does without an auth that does not start: a warning", async ({ stack }) => {
  const auth = `${stack.project}-auth`;
  await stack.docker("stop", "--time", "1", auth);
  const squatter = createServer().listen(Number(stack.env.AUTH_PORT), "127.0.0.1");
  const output = await goesBack(stack).finally(() => squatter.close());
  assert.match(output, "auth could not be started; the rollback continues without it");
  await stack.docker("rm", "--force", auth);
  assert.match(
    await goesBack(stack, noCompose(stack)),
    "auth could not be started; the rollback continues without it: Compose cannot read",
  );
  await goesBack(stack);
  assert.is(await stack.field(auth, "{{.State.Status}}"), "running");
});

wayBack("does without auth's folder", async ({ stack }) => {
  const output = await goesBack(stack, { OAUTH_DATA_PATH: "/proc/none/oauth" });
  assert.match(
    output,
    "Cannot create the folder /proc/none/oauth (OAUTH_DATA_PATH); the rollback continues without it",
  );
});

wayBack("does without a network that was removed: the container is made anew", async ({ stack }) => {
  const { color } = await stack.front();
  const standby = `${stack.project}-api-${color === "blue" ? "green" : "blue"}`;
  const extra = `${stack.project}-extra`;
  await stack.docker("network", "create", extra);
  await stack.docker("network", "connect", extra, standby);
  await stack.docker("network", "rm", extra);
  assert.match(await goesBack(stack), `the network of ${standby} is gone: recreating the container`);
});

/** Kills a rollback once it has passed a step with this name; gives where it came from and where it went to. */
async function cutOff(stack: Scratch, step: string, env: Record<string, string> = {}) {
  const { color: from } = await stack.front();
  if (!isColor(from)) return assert.unreachable(from) as never;
  const to = getInactiveColor(from);
  const run = startRun(stack, "rollback", env);
  await run.passed(step.replace("TO", to));
  run.kill("SIGKILL");
  await run.ended;
  return { from, to };
}

async function finishes(stack: Scratch, { from, to }: { from: string; to: string }): Promise<void> {
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, `Rolled back, finishing the interrupted run: ${from} → ${to}`);
  assert.equal([(await stack.front()).color, await stack.running()], [to, [to]]);
}

wayBack("that was cut off is still finished after a retry that failed early", async ({ stack }) => {
  const way = await cutOff(stack, "switch nginx to TO", { VERIFY_SECONDS: "30" });
  const retry = await stack.rollback([], { DOCKER_CMD: "/bin/false" });
  assert.is(retry.exitCode, 1, retry.stdall);
  assert.match(retry.stderr, "Docker is not reachable");
  await finishes(stack, way);
});

wayBack("that was cut off is still finished after a retry that was interrupted", async ({ stack }) => {
  const way = await cutOff(stack, "mark TO as active");
  const retry = startRun(stack, "rollback", { VERIFY_SECONDS: "60" });
  await retry.passed("clear the record of the interrupted run");
  retry.kill("SIGINT");
  const { exitCode, output } = await retry.ended;
  assert.is(exitCode, 130, output);
  await finishes(stack, way);
});

/** The processes of this machine that have this text in their command line. */
async function processesWith(text: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return lines.filter((line) => line.includes(text));
}

wayBack("a build that hangs is ended, with all of its processes, and the lock is free", async ({ stack }) => {
  const { color } = await stack.front();
  const hung = join(stack.folder, "hung");
  const sleep = `sleep ${100_000 + (process.pid % 100_000)}`;
  await mkdir(hung);
  await writeFile(join(hung, "Dockerfile"), `FROM debian:trixie-slim\nRUN echo so far; ${sleep}\n`);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: hung, BUILD_SECONDS: "8" });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "The build took longer than 8 s and was stopped");
  assert.match(run.stderr, "so far");
  assert.match(run.stderr, "or raise BUILD_SECONDS");
  assert.equal(await processesWith(`-p\0${stack.project}\0`), []);
  await waitFor("the engine ends what the build ran", async () => (await processesWith(sleep)).length === 0);
  assert.is((await stack.front()).color, color);
  const output = await goesBack(stack);
  assert.not.match(output, /cut off|waiting for/);
});
wayBack.run();
