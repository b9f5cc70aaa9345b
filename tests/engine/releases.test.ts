import { join } from "node:path";
import * as assert from "uvu/assert";
import {
  hasRegistry,
  type Registry,
  SMALL_API_PORT,
  smallApi,
  startRegistry,
} from "../../bench/testbed/registry.ts";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { type Color, getInactiveColor } from "../../lib/color.ts";
import { pull } from "../../lib/docker/pull.ts";
import { PullError, UsageError } from "../../lib/errors.ts";
import { findRelease, listReleases } from "../../lib/release/releases.ts";
import { readStatus } from "../../lib/release/status.ts";
import { describeStatus } from "../../lib/release/status-text.ts";
import { type Context, readOnlyContext } from "../../lib/run/context.ts";
import { readHistory } from "../../lib/run/history.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

const releases = suite<{
  stack: Scratch;
  open: Registry;
  closed: Registry;
  context(version: string): Promise<string>;
}>("releases of images");
releases.before(async (context) => {
  const stack = await createScratch("releases");
  stack.env.API_PORT = SMALL_API_PORT;
  context.stack = stack;
  context.open = await startRegistry(stack);
  context.closed = await startRegistry(stack, true);
});
releases.after(async ({ stack, open, closed }) => {
  open.stop();
  closed.stop();
  await stack.remove();
});

async function assertServes(stack: Scratch, version: string): Promise<void> {
  const { status, color, body } = await stack.get();
  assert.equal([status, JSON.parse(body).version], [200, version]);
  assert.equal([await stack.running(), await stack.readStateFile()], [[color], `${color}\n`]);
}

/** Everything that a failed run must leave as it was. */
const stateOf = async (stack: Scratch): Promise<unknown> => [
  await stack.get(),
  await stack.running(),
  (await stack.docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")).stdout
    .split("\n")
    .filter((line) => line.includes(stack.project))
    .sort(),
];

/** For what changes nothing: a pull, the status, the list of releases. */
const contextOf = (stack: Scratch, env: Record<string, string> = {}): Context =>
  readOnlyContext(loadSettings({ ...stack.env, ...env }, "/nonexistent", "nothing"), createLog());

/** The numbers of the kept releases, the one that served last first. */
const numbers = async (stack: Scratch): Promise<number[]> =>
  (await listReleases(contextOf(stack))).map(({ release }) => release);

/** The tags that keep the images of releases. */
const releaseTags = async ({ docker, project }: Scratch): Promise<string[]> =>
  (await docker("images", "--format", "{{.Tag}}", "--filter", `reference=${project}-api:release-*`)).stdout
    .split("\n")
    .filter(Boolean)
    .sort();

/** The image of a tag of this stack: a color, or `release-N`. */
const imageOf = ({ field, project }: Scratch, tag: string) => field(`${project}-api:${tag}`, "{{.Id}}");

/** A field of a color's container. */
const container = ({ field, project }: Scratch, color: string, template: string) =>
  field(`${project}-api-${color}`, template);

/** The release serves, and nothing else runs. */
async function assertReleased(stack: Scratch, release: string): Promise<void> {
  const { color } = await stack.get();
  assert.equal(await stack.running(), [color]);
  assert.is(await container(stack, color, "{{.Image}}"), await imageOf(stack, `release-${release}`));
}

releases("images from a registry, --if-changed, and the list", async ({ stack, open }) => {
  assert.equal(await numbers(stack), []);
  const image = await open.push(await smallApi(stack, "1.0.1"), "1.0", [
    "--label",
    "org.opencontainers.image.revision=4f2a9c1d3b",
  ]);
  const run = await stack.deploy([], { LOOP_API_IMAGE: image, LOOP_API_CONTEXT: "/nonexistent" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, /pulled \S+:1\.0 @ sha256:[0-9a-f]{12}/);
  assert.match(
    run.stdout,
    /Released blue → green: \S+ \(\S+:1\.0 @ sha256:[0-9a-f]{12}, revision 4f2a9c1d3b\)/,
  );
  await assertServes(stack, "1.0.1");

  await open.push(await smallApi(stack, "1.0.2"), "1.0"); // the tag moves
  const changed = await stack.deploy(["--image", image, "--if-changed"]);
  assert.is(changed.exitCode, 0, changed.stdall);
  await assertServes(stack, "1.0.2");

  const runs = () => readHistory(join(stack.stateDir, "history.jsonl"));
  const [{ length }, before] = [await runs(), await stack.get()];
  const same = await stack.deploy(["--image", image, "--if-changed", "--quiet"]);
  assert.is(same.exitCode, 0, same.stdall);
  assert.match(same.stdout, /^\S+ Nothing new: blue serves .* in \d+\.\d s\n$/);
  assert.equal([(await runs()).length, await stack.get()], [length, before]);

  const list = await stack.rollback(["--list"]);
  assert.is(list.exitCode, 0, list.stdall);
  const rows = list.stdout.split("\n").filter((line) => /^\d/.test(line));
  assert.is(rows.length, 2, list.stdout);
  assert.match(
    rows[0] ?? "",
    /^2 +\d{4}-\d\d-\d\d \d\d:\d\d +\d+ min +\S+:1\.0 @ sha256:[0-9a-f]{12} +- +\d+ MB +blue serves it$/,
  );
  assert.match(rows[1] ?? "", /^1 .*:1\.0 @ sha256:[0-9a-f]{12} +4f2a9c1d3b +\d+ MB +on green$/);
  assert.match((await runs())[0]?.source ?? "", /:1\.0@sha256:[0-9a-f]{64}$/);

  const status = await readStatus(contextOf(stack));
  assert.match(status.colors.blue.source ?? "", /:1\.0@sha256:[0-9a-f]{64}$/);
  assert.match(describeStatus(status), /blue +running .*:1\.0 @ sha256:[0-9a-f]{12} · /);
});

releases(
  "a release whose run was killed after its mark gets its number from the next run, which knows that its build is the same although its labels differ",
  async ({ stack }) => {
    const sources = { ...(await stack.apiVersion("1.0.5")), API_PORT: "8081" }; // the example
    const run = startRun(stack, "deploy", sources, [], ["--if-changed"]);
    await run.waitForStep("mark");
    run.kill("SIGKILL");
    await run.ended;
    const before = await imageOf(stack, "blue");
    const next = await stack.deploy(["--if-changed"], sources); // a build for the other color has other labels
    assert.is(next.exitCode, 0, next.stdall);
    assert.match(next.stdout, "Nothing new: green serves");
    assert.is(await imageOf(stack, "blue"), before);
    await assertServes(stack, "1.0.5");
    await assertReleased(stack, "3");
  },
);

releases(
  "a pull that fails says why, and changes nothing; with the login it succeeds",
  async ({ stack, open, closed }) => {
    const secret = await closed.push(await smallApi(stack, "1.0.6", { port: "3001" }), "1.0");
    const foreign = await open.push(await smallApi(stack, "1.0.6"), "foreign", ["--platform", "linux/s390x"]);
    const before = await stateOf(stack);
    const attempts = {
      [`${open.host}/${stack.project}/api:9`]: "the registry does not have it",
      [`${open.host}/${stack.project}/api@sha256:${"0".repeat(64)}`]: "the registry does not have it",
      [secret]: "the registry requires a login",
      [foreign]: "is an image for s390x, and this machine is",
      "127.0.0.1:1/me/api:1": "the registry cannot be reached",
    };
    const empty = { DOCKER_CONFIG: join(stack.folder, "empty") };
    const context = contextOf(stack, empty);
    for (const [image, why] of Object.entries(attempts)) {
      const error = await pull(context, image).catch((thrown) => thrown);
      assert.instance(error, PullError);
      assert.match(error.message, image);
      assert.match(error.message, why);
      assert.match(error.next, "the serving color was not touched");
    }
    const run = await stack.deploy(["--image", secret], empty);
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, `${secret} cannot be pulled: the registry requires a login`);
    assert.match(run.stderr, "the serving color was not touched");
    const wrong = await stack.deploy(["--image", "Not An Image"]);
    assert.is(wrong.exitCode, 2);
    assert.match(wrong.stderr, 'LOOP_API_IMAGE is "Not An Image": it must be an image such as');
    await stack.docker("rmi", foreign);
    assert.equal(await stateOf(stack), before);

    const loggedIn = await stack.deploy(["--image", secret], { ...closed.login, API_PORT: "3001" });
    assert.is(loggedIn.exitCode, 0, loggedIn.stdall);
    assert.match(loggedIn.stdout, "load the ports of the APIs into nginx");
    await assertServes(stack, "1.0.6");
  },
);

/** Starts a rollback to a release, and kills it after a step. */
async function killTo(stack: Scratch, release: string, step: string): Promise<void> {
  const run = startRun(stack, "rollback", {}, [], ["--to", release]);
  await run.waitForStep(step);
  run.kill("SIGKILL");
  await run.ended;
  assert.is((await stack.get()).status, 200, step);
}

releases(
  "--to goes back to a release; a run of it that is killed is repaired by the next run",
  async ({ stack }) => {
    // Blue serves release 4, green has 3, and neither color has 1 and 2.
    const before = await imageOf(stack, "green");
    await killTo(stack, "1", "use the image of release");
    await killTo(stack, "1", "recreate"); // the run that repairs it is killed too
    assert.is(await imageOf(stack, "green"), await imageOf(stack, "release-1"));
    // A run that wants something else finds the idle color as it was.
    const other = await stack.rollback();
    assert.is(other.exitCode, 0, other.stdall);
    assert.is(await container(stack, "green", "{{.Image}}"), before);
    await assertServes(stack, "1.0.5");
    await assertReleased(stack, "3");

    // The owner changes their mind. The color that was left is the marked one: it must not be replaced.
    const marked = await container(stack, "green", "{{.Id}}");
    await killTo(stack, "1", "switch");
    const changed = await stack.rollback(["--to", "2"]);
    assert.is(changed.exitCode, 0, changed.stdall);
    assert.match(changed.stdall, "was never fully verified: going back to green");
    assert.match(changed.stdout, /Rolled back to release 2, green → blue: \S+ \(\S+:1\.0 @ sha256:/);
    assert.is(await container(stack, "green", "{{.Id}}"), marked);
    await assertServes(stack, "1.0.2");
    await assertReleased(stack, "2");

    const whole = await stack.rollback(["--to", "4"]); // with nothing to repair
    assert.is(whole.exitCode, 0, whole.stdall);
    assert.match(whole.stdout, /Rolled back to release 4, blue → green: \S+ \(\S+:1\.0 @ sha256:/);
    await assertServes(stack, "1.0.6");
    await assertReleased(stack, "4");

    await killTo(stack, "1", "mark");
    const again = await stack.rollback(["--to", "1"]);
    assert.is(again.exitCode, 0, again.stdall);
    assert.match(again.stdout, "to release 1, finishing the interrupted run");
    await assertServes(stack, "1.0.1");
    await assertReleased(stack, "1");
    assert.equal(await numbers(stack), [1, 4, 2, 3], "the release that served last is the first");
  },
);

releases("--to the serving release changes nothing; an unknown one is an error", async ({ stack }) => {
  const before = await stateOf(stack);
  const serving = await stack.rollback(["--to", "1"]);
  assert.is(serving.exitCode, 0, serving.stdall);
  assert.match(serving.stdout, "Release 1 serves already: blue serves");
  assert.equal(await stateOf(stack), before);
  const unknown = await findRelease(contextOf(stack), 9).catch((error) => error);
  assert.instance(unknown, UsageError);
  assert.match(unknown.message, "There is no release 9");
  assert.is(unknown.details, "Kept: 1, 2, 3, 4.");
});

releases("only KEEP_RELEASES releases stay, and nothing of a failed one", async ({ stack, open }) => {
  const bad = await open.push(await smallApi(stack, "1.0.7", { status: "unhealthy" }), "bad");
  const kept = await releaseTags(stack);
  const failed = await stack.deploy(["--image", bad], { HEALTH_RETRIES: "2" });
  assert.is(failed.exitCode, 1, failed.stdall);
  assert.equal(await releaseTags(stack), kept);
  const references = async () =>
    (await stack.docker("images", "--digests", "--format", "{{.Repository}}:{{.Tag}}@{{.Digest}}")).stdout
      .split("\n")
      .filter((line) => line.includes(`/${stack.project}/`));

  const good = await open.push(await smallApi(stack, "1.0.8"), "good");
  const owners = `${open.host}/${stack.project}/api:1.0`; // pulled by earlier releases; the owner gives it another image
  await stack.docker("tag", "nginx:1.30", owners);
  const idle = getInactiveColor((await stack.get()).color as Color);
  const volume = await container(stack, idle, "{{range .Mounts}}{{.Name}}{{end}}");
  assert.match(volume, /^[0-9a-f]{64}$/);
  const run = await stack.deploy(["--image", good], { KEEP_RELEASES: "2" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await numbers(stack)).length, 2);
  assert.equal(
    (await references()).map((line) => line.replace(/.*\/api:/, "").replace(/@.*/, "")).sort(),
    ["1.0", "<none>", "good"], // the owner's; of the previous release, whose tag moved, the digest; the newest
  );
  await assertServes(stack, "1.0.8");
  assert.match((await stack.docker("volume", "inspect", volume)).stderr, /no such volume/i);
  await stack.docker("rmi", owners);
});

if (hasRegistry) releases.run();
else {
  const skipped = suite("releases of images");
  skipped.skip("needs docker-registry", () => undefined);
  skipped.run();
}
