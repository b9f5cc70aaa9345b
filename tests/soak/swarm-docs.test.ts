import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseEnv } from "node:util";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { scriptCommand } from "../../bench/testbed/script.ts";
import type { Node } from "../../bench/testbed/swarm.ts";
import { getInactiveColor } from "../../lib/color.ts";
import { ROOT } from "../../lib/settings.ts";
import { swarm } from "../../lib/swarm/swarm.ts";
import { checkColorEngine } from "../color-engine.ts";
import {
  type Bed,
  createBed,
  failures,
  manager,
  SMOKE,
  serving,
  startPosts,
  statusOf,
  succeed,
  swarmSuite,
  version,
  waitForAddresses,
} from "../swarm-bed.ts";
import { addSwarmTests } from "../swarm-checks.ts";

const { tests: swarmTests, run } = swarmSuite("docs/swarm.md with three nodes", () => createBed(false));

/** The text of a block of docs/swarm.md, with the names and addresses of this swarm. */
async function block({ stack, swarm }: Bed, name: string): Promise<string> {
  const page = await readFile(join(ROOT, "docs/swarm.md"), "utf8");
  const text = page.match(new RegExp(`^ *\`\`\`\\w+ ${name}\\n([^]*?)^ *\`\`\``, "m"))?.[1];
  assert.ok(text, `the page has no block ${name}`);
  return text
    .replaceAll("192.168.1.11:5000", swarm.registry)
    .replaceAll("192.168.1.11", swarm.nodes[0]?.address ?? "")
    .replaceAll(/\bloop-(?=api|nginx|swarm)/g, `${stack.project}-`)
    .replaceAll(/npx tsx scripts\/(\S+)\.mts/g, (_, script) => scriptCommand(script).join(" "));
}

/** Runs a block on a node, as an owner would paste it. Each line must succeed. Returns its output. */
async function paste(bed: Bed, name: string, node: Node, token = ""): Promise<string> {
  const text = (await block(bed, name)).replace("TOKEN", token);
  const env = { ...bed.stack.env, ...node.env };
  const shell = $({
    quiet: true,
    nothrow: true,
    cwd: bed.stack.folder,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const run = await shell`${node.launcher} bash -e -c ${text}`;
  assert.is(run.exitCode, 0, `${name}: ${run.stdall}`);
  return run.stdout;
}

swarmTests("docs/swarm.md leads from one machine to three without a lost request", async (bed) => {
  const { stack, swarm } = bed;
  await succeed(stack.deploy([], await version(bed, "0.9.0"))); // with Compose
  const from = await serving(bed);
  const color = getInactiveColor(from);
  const load = startPosts(bed);
  const token = (await paste(bed, "init", manager(bed))).trim().split("\n").at(-1);
  for (const node of swarm.nodes.slice(1)) await paste(bed, "join", node, token);
  Object.assign(stack.env, parseEnv((await block(bed, "settings")).replace(/^ +/gm, "")));
  Object.assign(stack.env, await version(bed, "0.9.1"));

  stack.env.SMOKE_COMMAND = SMOKE;
  const output = await paste(bed, "release", manager(bed));
  delete stack.env.SMOKE_COMMAND;
  assert.match(output, /3 of 3 replicas on node-1, node-2, node-3/);
  assert.match(output, `✓ check the idle connections of ${color}`);
  assert.not.match(output, "were not checked");
  assert.is(await serving(bed), color);
  const { colors, drift } = await statusOf(stack);
  assert.equal(drift, []);
  assert.equal(colors[color].replicas?.map(({ node, state }) => `${node} ${state}`).sort(), [
    "node-1 running",
    "node-2 running",
    "node-3 running",
  ]);
  assert.is(colors[color].health, "healthy");
  const { stdout } = await manager(bed).docker("service", "inspect", `${stack.project}-api-${color}`);
  assert.match(stdout, `${swarm.registry}/${stack.project}-api@sha256:`);
  await waitForAddresses(bed, color, 3);
  assert.equal(failures(await load.stop()), []);
});

addSwarmTests(swarmTests, 3);

swarmTests("a color is started, stopped, started again, discarded and recreated", async (bed) => {
  const { stack, image } = bed;
  await stack.docker("tag", image, `${stack.project}-api:first`);
  await stack.docker("tag", `${stack.project}-api:${await serving(bed)}`, `${stack.project}-api:second`);
  const [context, color] = await checkColorEngine(stack, [
    `${stack.project}-api:first`,
    `${stack.project}-api:second`,
  ]);
  // Each of its replicas may still serve sessions.
  const look = async () => (await swarm.inspectColors(context))[color];
  const fewer = { ...context, settings: { ...context.settings, replicas: 1 } };
  await swarm.start(fewer, color, await look());
  const inspect = [
    "service",
    "inspect",
    "--format",
    "{{.Spec.Mode.Replicated.Replicas}}",
    `${stack.project}-api-${color}`,
  ];
  assert.is((await stack.docker(...inspect)).stdout.trim(), "3");
});

swarmTests("docs/swarm.md leads back to one machine without a lost request", async (bed) => {
  const { stack } = bed;
  const load = startPosts(bed);
  const from = await serving(bed);
  await paste(bed, "end", manager(bed));
  Object.assign(stack.env, { ENGINE: "compose" }, await version(bed, "2.0.0"));
  assert.match(
    (await statusOf(stack)).drift.join(),
    "its container does not run: is it still a service of a swarm?",
  );
  await paste(bed, "back", manager(bed)); // it stops the replicas of the idle color, which still run
  assert.is(JSON.parse((await stack.get()).body).version, "2.0.0");
  assert.equal((await statusOf(stack)).drift, []);
  await paste(bed, "clean", manager(bed));
  const recreated = await succeed(stack.rollback()); // the color that was a service is a container again
  assert.match(recreated, `✓ recreate ${from}`);
  assert.is(await stack.containerStatus(from), "running");
  assert.is(JSON.parse((await stack.get()).body).version, "0.9.1");
  assert.equal(failures(await load.stop()), []);
  assert.is((await manager(bed).docker("service", "ls", "--quiet")).stdout, "");
});

run();
