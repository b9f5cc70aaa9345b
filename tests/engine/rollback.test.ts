import { existsSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, freePort, type Scratch } from "../../bench/testbed/scratch.ts";
import { readHistory } from "../../lib/run/history.ts";
import { suite } from "../suite.ts";

/** No shell may see the folder's name. */
const ODD_NAME = 'it\'s $(touch pwned) `touch pwned` "ü"\nfolder';

const rollback = suite<{ stack: Scratch }>("rollback, in a folder with an odd name");
rollback.before(async (context) => {
  context.stack = await createScratch("rollback", ODD_NAME);
});
rollback.after(({ stack }) => stack.remove());

rollback("after the first release there is nothing to roll back to", async ({ stack }) => {
  const first = await stack.deploy([], await stack.apiVersion("1.1.0"));
  assert.is(first.exitCode, 0, first.stdall);
  assert.match(first.stdout, "there is nothing to go back to yet");
  const run = await stack.rollback();
  assert.is(run.exitCode, 1);
  assert.match(run.stderr, "nothing to roll back to");
  assert.match(run.stderr, "Next: It exists after a second release");
  assert.equal(
    [await stack.running(), await stack.readStateFile(), (await stack.get()).color],
    [["green"], "green\n", "green"],
  );
});

async function assertServes(stack: Scratch, color: string, version: string): Promise<void> {
  const { color: served, body } = await stack.get();
  assert.equal([served, JSON.parse(body).version], [color, version]);
  assert.equal([await stack.running(), await stack.readStateFile()], [[color], `${color}\n`]);
}

rollback("a rollback goes back to the previous build, even if the source is newer", async ({ stack }) => {
  assert.is((await stack.deploy([], await stack.apiVersion("1.2.0"))).exitCode, 0);
  await assertServes(stack, "blue", "1.2.0");
  const previous = await stack.field(`${stack.project}-api-green`, "{{.Id}}");
  const run = await stack.rollback([], await stack.apiVersion("1.3.0"));
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, "Rolled back blue → green");
  await assertServes(stack, "green", "1.1.0");
  assert.is(
    await stack.field(`${stack.project}-api-green`, "{{.Id}}"),
    previous,
    "the container was recreated",
  );
});

rollback(
  "a second rollback returns to the later release and does not restart nginx; interrupted after its mark, it completes and says not to run it again",
  async ({ stack }) => {
    const startTime = () => stack.field(stack.nginxContainer, "{{.State.StartedAt}}");
    const before = await startTime();
    const run = startRun(stack, "rollback");
    await run.waitForStep("mark blue as active");
    run.kill("SIGINT");
    const { exitCode, output } = await run.ended;
    assert.is(exitCode, 130, output);
    assert.match(output, "but the run was already complete: do not run it again");
    const last = (await readHistory(join(stack.stateDir, "history.jsonl"))).at(-1);
    assert.is(last?.result, "done, interrupted");
    assert.match(
      last?.message ?? "",
      /^Rolled back green → blue: .*\. Interrupted by SIGINT, but the run was already complete/,
    );
    await assertServes(stack, "blue", "1.2.0");
    assert.is(await startTime(), before);
  },
);

rollback("a pruned container is recreated from its image", async ({ stack }) => {
  await stack.docker("rm", `${stack.project}-api-green`);
  const run = await stack.rollback();
  assert.is(run.exitCode, 0, run.stdall);
  await assertServes(stack, "green", "1.1.0");
});

rollback("a container with an outdated port is recreated with the current one", async ({ stack }) => {
  const run = await stack.rollback([], { BLUE_PORT: String(await freePort()) });
  assert.is(run.exitCode, 0, run.stdall);
  await assertServes(stack, "blue", "1.2.0");
});

rollback(
  "if the previous color does not become healthy, the serving color keeps serving",
  async ({ stack }) => {
    await stack.docker("rm", `${stack.project}-api-green`);
    const run = await stack.rollback([], { LOOP_FAULT: "unhealthy", HEALTH_RETRIES: "2" });
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, "Health check failed, rollback not performed");
    await assertServes(stack, "blue", "1.2.0");
  },
);

rollback("no run has given the folder's name to a shell", async ({ stack }) => {
  assert.not(existsSync(join(stack.folder, "pwned")));
});
rollback.run();
