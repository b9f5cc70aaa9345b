import { join } from "node:path";
import * as assert from "uvu/assert";
import { hasRegistry, type Registry, smallApi, startRegistry } from "../../bench/testbed/registry.ts";
import { startRun } from "../../bench/testbed/run.ts";
import { createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { type Color, getInactiveColor } from "../../lib/color.ts";
import { readHistory } from "../../lib/run/history.ts";
import { suite } from "../suite.ts";

const releases = suite<{
  stack: Scratch;
  open: Registry;
  closed: Registry;
  context(version: string): Promise<string>;
}>("releases of images");
releases.before(async (context) => {
  const stack = await createScratch("releases");
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

const list = async (stack: Scratch): Promise<string[]> => {
  const run = await stack.rollback(["--list"]);
  assert.is(run.exitCode, 0, run.stdall);
  return run.stdout
    .split("\n")
    .slice(1)
    .filter((line) => /^\d/.test(line));
};

const numbers = (rows: readonly string[]): number[] => rows.map((row) => Number.parseInt(row, 10));

releases("three images from a registry, the list, and back to the first", async ({ stack, open }) => {
  assert.match((await stack.rollback(["--list"])).stdout, "No release is kept yet");
  const first = await open.push(await smallApi(stack, "1.0.1"), "1.0", [
    "--label",
    "org.opencontainers.image.revision=4f2a9c1d3b",
  ]);
  const run = await stack.deploy([], { LOOP_API_IMAGE: first, LOOP_API_CONTEXT: "/nonexistent" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, /pulled \S+:1\.0 @ sha256:[0-9a-f]{12}/);
  assert.match(
    run.stdout,
    /Released blue → green: \S+ \(\S+:1\.0 @ sha256:[0-9a-f]{12}, revision 4f2a9c1d3b\)/,
  );
  await assertServes(stack, "1.0.1");

  for (const version of ["1.0.2", "1.0.3"]) {
    const next = await stack.deploy(["--image", await open.push(await smallApi(stack, version), version)]);
    assert.is(next.exitCode, 0, next.stdall);
    await assertServes(stack, version);
  }
  const rows = await list(stack);
  assert.equal(numbers(rows), [3, 2, 1], rows.join("\n"));
  assert.match(
    rows[0] ?? "",
    /^3 +\d{4}-\d\d-\d\d \d\d:\d\d +\d+ min +\S+:1\.0\.3 @ sha256:[0-9a-f]{12} +- +\d+ MB +green serves it$/,
  );
  assert.match(rows[1] ?? "", /on blue$/);
  assert.match(rows[2] ?? "", /:1\.0 @ sha256:[0-9a-f]{12} +4f2a9c1d3b +\d+ MB$/);

  const status = JSON.parse((await stack.status(["--json"])).stdout);
  assert.match(status.colors.green.source, /:1\.0\.3@sha256:[0-9a-f]{64}$/);
  assert.match((await stack.status()).stdout, /green +running .*:1\.0\.3 @ sha256:[0-9a-f]{12} · /);

  const back = await stack.rollback(["--to", "1"]);
  assert.is(back.exitCode, 0, back.stdall);
  assert.match(back.stdout, /Rolled back to release 1, green → blue: \S+ \(\S+:1\.0 @ sha256:/);
  await assertServes(stack, "1.0.1");
  assert.equal(numbers(await list(stack)), [1, 3, 2], "the release that served last is the first");
  const runs = await readHistory(join(stack.stateDir, "history.jsonl"));
  assert.match(runs[0]?.source ?? "", /:1\.0@sha256:[0-9a-f]{64}$/);

  assert.is((await stack.rollback()).exitCode, 0);
  await assertServes(stack, "1.0.3");
});

releases("--to the serving release changes nothing; an unknown one is an error", async ({ stack }) => {
  const before = await stateOf(stack);
  const serving = await stack.rollback(["--to", "3"]);
  assert.is(serving.exitCode, 0, serving.stdall);
  assert.match(serving.stdout, "Release 3 serves already: green serves");
  const unknown = await stack.rollback(["--to", "9"]);
  assert.is(unknown.exitCode, 2);
  assert.match(unknown.stderr, /There is no release 9.*\n.*Kept: 1, 2, 3\./);
  assert.equal(await stateOf(stack), before);
});

releases("--if-changed releases only what is new, pulled or built", async ({ stack, open }) => {
  const image = `${open.host}/${stack.project}/api:1.0.3`;
  const runs = async () => (await readHistory(join(stack.stateDir, "history.jsonl"))).length;
  const [entries, before] = [await runs(), await stack.get()];
  const same = await stack.deploy(["--image", image, "--if-changed", "--quiet"]);
  assert.is(same.exitCode, 0, same.stdall);
  assert.match(same.stdout, /^\S+ Nothing new: green serves .* in \d+\.\d s\n$/);
  assert.equal([await runs(), await stack.get()], [entries, before]);

  await open.push(await smallApi(stack, "1.0.4"), "1.0.3"); // the tag moves
  const changed = await stack.deploy(["--image", image, "--if-changed"]);
  assert.is(changed.exitCode, 0, changed.stdall);
  await assertServes(stack, "1.0.4");

  const sources = await stack.apiVersion("1.0.5");
  assert.is((await stack.deploy(["--if-changed"], sources)).exitCode, 0);
  await assertServes(stack, "1.0.5");
  const tag = () => stack.field(`${stack.project}-api:blue`, "{{.Id}}");
  const imageBefore = await tag();
  const again = await stack.deploy(["--if-changed"], sources); // a build for the other color has other labels
  assert.match(again.stdout, "Nothing new: green serves");
  assert.is(await tag(), imageBefore);
  assert.is((await stack.deploy([], sources)).exitCode, 0);
  assert.is((await stack.get()).color, "blue", "without the option, it is released");
});

releases("a pull that fails says why, and changes nothing", async ({ stack, open, closed }) => {
  const secret = await closed.push(await smallApi(stack, "1.0.6"), "1.0");
  const foreign = await open.push(await smallApi(stack, "1.0.6"), "foreign", ["--platform", "linux/s390x"]);
  const before = await stateOf(stack);
  const attempts = {
    [`${open.host}/${stack.project}/api:9`]: "the registry does not have it",
    [`${open.host}/${stack.project}/api@sha256:${"0".repeat(64)}`]: "the registry does not have it",
    [secret]: "the registry requires a login",
    [foreign]: "is an image for s390x, and this machine is",
    "127.0.0.1:1/me/api:1": "the registry cannot be reached",
  };
  for (const [image, why] of Object.entries(attempts)) {
    const run = await stack.deploy(["--image", image], { DOCKER_CONFIG: join(stack.folder, "empty") });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, image);
    assert.match(run.stderr, why);
    assert.match(run.stderr, "the serving color was not touched");
  }
  const wrong = await stack.deploy(["--image", "Not An Image"]);
  assert.is(wrong.exitCode, 2);
  assert.match(wrong.stderr, 'LOOP_API_IMAGE is "Not An Image": it must be an image such as');
  await stack.docker("rmi", foreign);
  assert.equal(await stateOf(stack), before);

  const loggedIn = await stack.deploy(["--image", secret], closed.login);
  assert.is(loggedIn.exitCode, 0, loggedIn.stdall);
  await assertServes(stack, "1.0.6");
});

releases("only KEEP_RELEASES releases stay, and nothing of a failed one", async ({ stack, open }) => {
  const bad = await open.push(await smallApi(stack, "1.0.7", "unhealthy"), "bad");
  const kept = numbers(await list(stack));
  const failed = await stack.deploy(["--image", bad], { HEALTH_RETRIES: "2" });
  assert.is(failed.exitCode, 1, failed.stdall);
  assert.equal(numbers(await list(stack)), kept);
  const references = async () =>
    (await stack.docker("images", "--digests", "--format", "{{.Repository}}:{{.Tag}}@{{.Digest}}")).stdout
      .split("\n")
      .filter((line) => line.includes(`/${stack.project}/`));

  const good = await open.push(await smallApi(stack, "1.0.8"), "good");
  const owners = `${open.host}/${stack.project}/api:1.0.3`; // pulled by earlier releases; the owner gives it another image
  await stack.docker("tag", "nginx:1.30", owners);
  const idle = getInactiveColor((await stack.get()).color as Color);
  const volume = await stack.field(`${stack.project}-api-${idle}`, "{{range .Mounts}}{{.Name}}{{end}}");
  assert.match(volume, /^[0-9a-f]{64}$/);
  const run = await stack.deploy(["--image", good], { KEEP_RELEASES: "2" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await list(stack)).length, 2);
  assert.equal(
    (await references()).map((line) => line.replace(/.*\/api:/, "").replace(/@.*/, "")).sort(),
    ["1.0", "1.0.3", "good"], // of the password registry, the owner's, and the newest
  );
  await assertServes(stack, "1.0.8");
  assert.match((await stack.docker("volume", "inspect", volume)).stderr, /no such volume/i);
  await stack.docker("rmi", owners);
});

releases("a run of --to that is killed is repaired by the next run", async ({ stack }) => {
  for (const version of ["1.0.9", "1.0.10"])
    assert.is((await stack.deploy([], await stack.apiVersion(version))).exitCode, 0);
  let rows = await list(stack);
  for (const step of ["use the image of release", "recreate", "switch", "mark"]) {
    const free = rows.filter((row) => row.endsWith("MB")).map((row) => row.split(" ")[0] ?? ""); // neither color has them
    const [target = ""] = free;
    const { color: serving } = await stack.get();
    const idle = getInactiveColor(serving as Color);
    const before = await stack.field(`${stack.project}-api:${idle}`, "{{.Id}}");
    const run = startRun(stack, "rollback", {}, [], ["--to", target]);
    await run.waitForStep(step);
    run.kill("SIGKILL");
    await run.ended;
    assert.is((await stack.get()).status, 200, step);
    if (step === "recreate") {
      // A run that wants something else finds the idle color as it was.
      const other = await stack.rollback();
      assert.is(other.exitCode, 0, other.stdall);
      assert.is(await stack.field(`${stack.project}-api-${idle}`, "{{.Image}}"), before);
    }
    if (step === "switch") {
      // The owner changes their mind. The color that was left is the marked one: it must not be replaced.
      const marked = await stack.field(`${stack.project}-api-${serving}`, "{{.Id}}");
      const other = await stack.rollback(["--to", free[1] ?? ""]);
      assert.is(other.exitCode, 0, other.stdall);
      assert.match(other.stdall, `was never fully verified: going back to ${serving}`);
      assert.is(await stack.field(`${stack.project}-api-${serving}`, "{{.Id}}"), marked);
    }
    const again = await stack.rollback(["--to", target]);
    assert.is(again.exitCode, 0, `${step}\n${again.stdall}`);
    if (step === "mark") assert.match(again.stdout, `to release ${target}, finishing the interrupted run`);
    const { color } = await stack.get();
    assert.equal(await stack.running(), [color], `${step}\n${again.stdall}`);
    rows = await list(stack);
    assert.match(rows.find((row) => row.startsWith(`${target} `)) ?? "", `${color} serves it`, step);
  }
});

releases(
  "a release whose run was killed after its mark gets its number from the next run",
  async ({ stack }) => {
    const [before = 0] = numbers(await list(stack)).sort((a, b) => b - a);
    const run = startRun(stack, "deploy", await stack.apiVersion("1.0.11"));
    await run.waitForStep("mark");
    run.kill("SIGKILL");
    await run.ended;
    const { color } = await stack.get();
    assert.is((await stack.rollback()).exitCode, 0);
    const rows = await list(stack);
    assert.match(rows.find((row) => row.startsWith(`${before + 1} `)) ?? rows.join("\n"), `on ${color}`);
  },
);

if (hasRegistry) releases.run();
else {
  const skipped = suite("releases of images");
  skipped.skip("needs docker-registry", () => undefined);
  skipped.run();
}
