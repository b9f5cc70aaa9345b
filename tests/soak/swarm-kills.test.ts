import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import type { Verb } from "../../bench/testbed/run.ts";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { COLORS, type Color, getInactiveColor } from "../../lib/color.ts";
import {
  type Bed,
  createBed,
  failures,
  running,
  runningIn,
  serving,
  startPosts,
  statusOf,
  succeed,
  swarmSuite,
  version,
} from "../swarm-bed.ts";

const { tests: swarmTests, run } = swarmSuite("a swarm of one node, with runs that are killed", () =>
  createBed(true, 1),
);

/** A run, and its settings. Each deploy has a version of its own. */
interface Start {
  verb: Verb;
  env?: Record<string, string>;
}

const DEPLOY: Start = { verb: "deploy" };
const ROLLBACK: Start = { verb: "rollback" };

/** A deploy that undoes itself after its health check. */
const FAILING: Start = { verb: "deploy", env: { SMOKE_COMMAND: "false" } };

let deploys = 0;
const newest = (): string => `1.${deploys}.0`;

async function start(bed: Bed, { verb, env = {} }: Start = DEPLOY) {
  if (verb === "rollback") return bed.stack.rollback([], env);
  deploys++;
  return bed.stack.deploy([], { ...(await version(bed, newest())), ...env });
}

/** A shell pattern for the arguments of a docker command; `*` stands for any text. */
type Command = string;

const nameOf = ({ stack }: Bed, color: Color): string => `${stack.project}-api-${color}`;

/** The docker commands that change something of a color. */
const commandsOf = (bed: Bed, color: Color) => {
  const name = nameOf(bed, color);
  return {
    scale: `service scale * ${name}=0`,
    remove: `service rm ${name}`,
    tag: `tag sha256:* 127.0.0.1:1/*:${color}`,
    create: `service create * --name ${name} *`,
    update: `service update * ${name}`,
    discard: `service update * --label-add loop.discarded=yes ${name}`,
    standby: `service update * --label-add loop.standby=yes ${name}`,
    restore: `tag sha256:* ${bed.stack.project}-api:${color}`,
  };
};

/** Starts a run that is killed when the `nth` docker command that matches has ended. */
async function kill(bed: Bed, from: Start, command: Command, nth = 1): Promise<void> {
  const { stack } = bed;
  const [file, seen] = [
    join(stack.folder, "killing-docker"),
    join(stack.folder, `seen-${process.hrtime.bigint()}`),
  ];
  const lines = [
    "#!/bin/sh",
    `case "$*" in ${command.replaceAll(" ", "\\ ")}) ;; *) exec docker "$@" ;; esac`,
    'docker "$@"; code=$?',
    `echo "$*" >> ${seen}`,
    `test "$(wc -l < ${seen})" -lt ${nth} || kill -KILL $PPID`,
    "exit $code",
  ];
  await writeFile(file, `${lines.join("\n")}\n`, { mode: 0o755 });
  const killed = await start(bed, { ...from, env: { ...from.env, DOCKER_CMD: file } });
  assert.ok(killed.signal === "SIGKILL" || killed.exitCode === 137, `${command}:\n${killed.stdall}`);
}

const versionOf = async ({ stack }: Bed): Promise<string> => JSON.parse((await stack.get()).body).version;

/** Each replica must run the image that its service names in a label: the one that a rollback promises. */
async function assertImages({ stack }: Bed): Promise<void> {
  const label = "com.docker.swarm.service.name";
  const { stdout } = await stack.docker("ps", "--quiet", "--filter", `label=${label}`);
  for (const id of stdout.split("\n").filter(Boolean)) {
    const [name = "", image] = (
      await stack.field(id, `{{index .Config.Labels "${label}"}} {{.Image}}`)
    ).split(" ");
    const format = '{{index .Spec.Labels "loop.image"}}';
    const service = await stack.docker("service", "inspect", "--format", format, name);
    assert.is(image, service.stdout.trim(), name);
  }
}

/** What a killed run left, in words. */
async function describe(bed: Bed): Promise<string> {
  const { colors, serving } = await statusOf(bed.stack);
  const states = COLORS.map(
    (color) => `${color} ${colors[color].container}${colors[color].failed ? ", discarded" : ""}`,
  );
  return `${serving} serves; ${states.join("; ")}`;
}

/** The API still answers, and the next run reaches `serves` with nothing left to repair. */
async function repair(bed: Bed, next: Start, serves: () => string, what: string): Promise<void> {
  const { stack } = bed;
  const { drift } = await statusOf(stack);
  for (const problem of drift) assert.match(problem, /was killed|both colors run/, what);
  console.log(`${what}: ${await describe(bed)}`);
  const output = await succeed(start(bed, next));
  assert.is(await versionOf(bed), serves(), `${what}:\n${output}`);
  const active = await serving(bed);
  const status = await statusOf(stack);
  assert.equal(status.drift, [], `${what}:\n${output}`);
  const counts = [active, getInactiveColor(active)].map((color) => runningIn(status.colors[color]));
  assert.equal(counts, [2, stack.env.STANDBY === "paused" ? 2 : 0], `${what}:\n${output}`);
  await assertImages(bed);
}

swarmTests("the first release to the swarm", async (bed) => {
  const { stack } = bed;
  for (let i = 0; i < 2; i++) await succeed(start(bed)); // with Compose
  Object.assign(stack.env, { ENGINE: "swarm", REPLICAS: "2" });
  const load = startPosts(bed);
  const [first, idle] = [await versionOf(bed), getInactiveColor(await serving(bed))];
  await kill(bed, DEPLOY, "network create *");
  await kill(bed, DEPLOY, "network connect *");
  await kill(bed, DEPLOY, `stop ${nameOf(bed, idle)}`);
  await repair(bed, ROLLBACK, () => "1.1.0", "deploy, after the container was stopped");
  await kill(bed, DEPLOY, `rm ${nameOf(bed, getInactiveColor(idle))}`);
  await repair(bed, ROLLBACK, () => first, "deploy, after the container was removed");
  assert.equal(failures(await load.stop()), []);
});

type Point = keyof ReturnType<typeof commandsOf>;

swarmTests("a release, and the run that repairs it", async (bed) => {
  const load = startPosts(bed);
  let previous = "1.1.0"; // what a rollback returns to
  const points: readonly [kills: readonly [Start, Point, nth?: number][], next: Start][] = [
    [[[DEPLOY, "scale"]], ROLLBACK],
    [[[DEPLOY, "remove"]], ROLLBACK],
    [[[DEPLOY, "tag"]], ROLLBACK],
    [[[DEPLOY, "create"]], ROLLBACK],
    [[[DEPLOY, "create"]], DEPLOY],
    [[[DEPLOY, "update"]], ROLLBACK],
    [[[FAILING, "scale", 2]], ROLLBACK], // its undo
    [[[FAILING, "discard"]], ROLLBACK],
    [[[FAILING, "restore"]], ROLLBACK],
    // The recovery is killed too, and then the rollback that makes the service anew.
    [
      [
        [DEPLOY, "update"],
        [DEPLOY, "scale"],
        [ROLLBACK, "discard"],
        [ROLLBACK, "restore"],
        [ROLLBACK, "create"],
      ],
      ROLLBACK,
    ],
    [[[ROLLBACK, "tag"]], ROLLBACK], // it starts the service as it is
    [[[ROLLBACK, "update"]], DEPLOY],
  ];
  for (const [kills, next] of points) {
    const [active, before] = [await serving(bed), await versionOf(bed)];
    const commands = commandsOf(bed, getInactiveColor(active));
    for (const [killed, point, nth] of kills) {
      await kill(bed, killed, commands[point], nth);
      assert.is(await versionOf(bed), before, `${killed.verb}, ${point}`);
    }
    const what = kills.map(([{ verb }, point]) => `${verb}, after ${point}`).join("; ");
    await repair(bed, next, () => (next === ROLLBACK ? previous : newest()), what);
    previous = before;
  }
  assert.equal(failures(await load.stop()), []);
});

swarmTests("a stop of the color that served before", async (bed) => {
  const load = startPosts(bed);
  for (const killed of [DEPLOY, ROLLBACK]) {
    const [active, before] = [await serving(bed), await versionOf(bed)];
    await kill(bed, killed, commandsOf(bed, active).scale);
    const now = await versionOf(bed);
    assert.is.not(now, before, "it was marked");
    // A repeated rollback finishes the killed one.
    await repair(bed, ROLLBACK, () => (killed === ROLLBACK ? now : before), `${killed.verb}, after stop`);
  }
  assert.equal(failures(await load.stop()), []);
});

swarmTests("a paused standby, around a killed release", async (bed) => {
  const { stack } = bed;
  stack.env.STANDBY = "paused";
  const load = startPosts(bed);
  const [from, first] = [await serving(bed), await versionOf(bed)];
  await kill(bed, DEPLOY, commandsOf(bed, from).standby);
  const second = newest();
  await repair(bed, ROLLBACK, () => first, "paused: deploy, after standby");

  const color = getInactiveColor(from);
  await kill(bed, DEPLOY, commandsOf(bed, color).tag);
  // As after a power failure, which also ends all replicas. If the name of their image moves before the old service is removed,
  // Docker replaces them with the new image. In the right order, none are left.
  const own = ["--filter", `label=com.docker.swarm.service.name=${nameOf(bed, color)}`];
  const { stdout } = await stack.docker("ps", "--quiet", ...own);
  const replicas = stdout.split("\n").filter(Boolean);
  if (replicas.length > 0) {
    await stack.docker("rm", "--force", ...replicas);
    await waitFor("they are replaced", async () => (await running(bed, color)) === 2, 60, 1);
  }
  await repair(bed, ROLLBACK, () => second, "paused: deploy, after tag");
  assert.equal(failures(await load.stop()), []);
});

swarmTests("the replicas of a killed release do not stay on standby", async (bed) => {
  const { stack } = bed;
  stack.env.STANDBY = "paused";
  const idle = getInactiveColor(await serving(bed));
  await kill(bed, DEPLOY, commandsOf(bed, idle).update);
  const failed = await stack.deploy([], { LOOP_API_CONTEXT: join(stack.folder, "nginx") }); // no Dockerfile
  assert.is(failed.exitCode, 1, failed.stdall);
  await waitFor("none runs", async () => (await running(bed, idle)) === 0, 20, 1);
  assert.is((await statusOf(stack)).colors[idle].container, "exited");
});

run();
