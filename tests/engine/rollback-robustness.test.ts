import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";

/** Rollbacks with missing or broken parts, after killed rollbacks, and after a build that hangs. */
const robustness = suite<{ stack: Scratch }>("rollback robustness");
robustness.before(async (context) => {
  context.stack = await createReleasedScratch("robust", {});
});
robustness.after(({ stack }) => stack.remove());

/** Rolls back with these settings. Afterwards the other color must serve. Returns the output. */
async function rollBack(stack: Scratch, env: Record<string, string> = {}): Promise<string> {
  const color = (await stack.readStateFile()).trim();
  const run = await stack.rollback([], env);
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await stack.get()).color, color === "blue" ? "green" : "blue", run.stdall);
  return run.stdall;
}

/** The command lines of this machine's processes that contain this text. */
async function processesWith(text: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return lines.filter((line) => line.includes(text));
}

robustness("a build that hangs is stopped with all its processes", async ({ stack }) => {
  const { color } = await stack.get();
  const hung = join(stack.folder, "hung");
  const sleep = `sleep ${100_000 + (process.pid % 100_000)}`;
  await mkdir(hung);
  await writeFile(join(hung, "Dockerfile"), `FROM debian:trixie-slim\nRUN echo so far; ${sleep}\n`);
  const run = await stack.deploy([], { LOOP_API_CONTEXT: hung, BUILD_SECONDS: "15" });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "The build took longer than 15 s and was stopped");
  assert.match(run.stderr, "so far");
  assert.match(run.stderr, "or raise BUILD_SECONDS");
  assert.equal(await processesWith(`-p\0${stack.project}\0`), []);
  await waitFor(
    "the engine ends the processes of the build",
    async () => (await processesWith(sleep)).length === 0,
  );
  assert.is((await stack.get()).color, color);
});

/** COMPOSE_FILE with a missing file in the right folder, from which nginx's folder is found. */
const withoutComposeFile = ({ folder }: Scratch) => ({ COMPOSE_FILE: join(folder, "gone.yml") });

robustness(
  "a rollback finds the lock free, starts nginx and auth, and puts back a pruned tag, without the compose file and the sources",
  async ({ stack }) => {
    const { color } = await stack.get();
    const idle = color === "blue" ? "green" : "blue";
    const tag = `${stack.project}-api:${idle}`;
    const image = await stack.field(tag, "{{.Id}}");
    await stack.docker("rmi", tag); // as docker image prune --all does; its release number keeps the image
    assert.is(await stack.field(tag, "{{.Id}}"), "absent");
    const auth = `${stack.project}-auth`;
    await stack.docker("stop", "--time", "1", stack.nginxContainer, auth);
    await writeFile(join(stack.folder, "broken.yml"), "services: [\n");
    const broken = { COMPOSE_FILE: join(stack.folder, "broken.yml") };

    const output = await rollBack(stack, { ...broken, LOOP_API_CONTEXT: "/no/such/source" });
    assert.not.match(output, /was killed|waiting for/); // the build that hung before this test
    assert.match(output, `start ${stack.nginxContainer}`);
    assert.is(await stack.field(auth, "{{.State.Status}}"), "running");
    assert.match(output, `${tag} was removed, but the container of ${idle} still has its image`);
    assert.is(await stack.field(tag, "{{.Id}}"), image);

    const invalid = await stack.deploy([], broken);
    assert.is(invalid.exitCode, 2, invalid.stdall);
    assert.match(invalid.stderr, /Compose cannot read .*broken.yml[\s\S]*yaml/);
    const missing = await stack.deploy([], withoutComposeFile(stack));
    assert.is(missing.exitCode, 2, missing.stdall);
    assert.match(missing.stderr, "gone.yml, which does not exist");
  },
);

robustness(
  "a rollback warns and continues if auth does not start, and recreates a container whose network was removed",
  async ({ stack }) => {
    const { color } = await stack.get();
    const standby = `${stack.project}-api-${color === "blue" ? "green" : "blue"}`;
    const extra = `${stack.project}-extra`;
    await stack.docker("network", "create", extra);
    await stack.docker("network", "connect", extra, standby);
    await stack.docker("network", "rm", extra);
    await stack.docker("stop", "--time", "1", `${stack.project}-auth`);
    const blocker = createServer().listen(Number(stack.env.AUTH_PORT), "127.0.0.1");
    const output = await rollBack(stack).finally(() => blocker.close());
    assert.match(output, "auth could not be started; the rollback continues without it");
    assert.match(output, `the network of ${standby} is gone: recreating the container`);
  },
);

robustness(
  "a rollback warns and continues if auth cannot be created, nor its data folder",
  async ({ stack }) => {
    await stack.docker("rm", "--force", `${stack.project}-auth`);
    const output = await rollBack(stack, {
      ...withoutComposeFile(stack),
      OAUTH_DATA_PATH: "/proc/none/oauth",
    });
    assert.match(output, "auth could not be started; the rollback continues without it: Compose cannot read");
    assert.match(
      output,
      "Cannot create the folder /proc/none/oauth (OAUTH_DATA_PATH); the rollback continues without it",
    );
  },
);

robustness(
  "a rollback recreates auth; if it is interrupted, it is still finished after retries that failed early or were interrupted too",
  async ({ stack }) => {
    const auth = `${stack.project}-auth`; // removed by the test before
    assert.is(await stack.field(auth, "{{.State.Status}}"), "absent");
    const { color: from } = await stack.get();
    const to = from === "blue" ? "green" : "blue";
    const killed = startRun(stack, "rollback");
    await killed.waitForStep(`mark ${to} as active`);
    killed.kill("SIGKILL");
    await killed.ended;
    assert.is(await stack.field(auth, "{{.State.Status}}"), "running");

    const early = await stack.rollback([], { DOCKER_CMD: "/bin/false" });
    assert.is(early.exitCode, 1, early.stdall);
    assert.match(early.stderr, "Docker is not reachable");

    const retry = startRun(stack, "rollback", { VERIFY_SECONDS: "60" });
    await retry.waitForStep("clear the record of the interrupted run");
    retry.kill("SIGINT");
    const { exitCode, output } = await retry.ended;
    assert.is(exitCode, 130, output);

    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, `Rolled back, finishing the interrupted run: ${from} → ${to}`);
    assert.equal([(await stack.get()).color, await stack.running()], [to, [to]]);
  },
);
robustness.run();
