import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseEnv } from "node:util";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { startRun } from "../../bench/testbed/run.ts";
import { waitFor } from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { startSessions } from "../../bench/testbed/sessions.ts";
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
  runningIn,
  serving,
  sessionApi,
  startPosts,
  statusOf,
  succeed,
  swarmSuite,
  url,
  version,
} from "../swarm-bed.ts";

const { tests: swarmTests, run } = swarmSuite("a swarm of three nodes", () => createBed(false));

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

/** A smoke test that passes if the new color itself answers at LOOP_URL, and nothing else can be reached through it. */
const SMOKE = [
  `curl -fsS "$LOOP_URL/health" | grep -q '"version":"0.9.1"'`,
  `test "$(curl -s --path-as-is -o /dev/null -w '%{http_code}' "$LOOP_URL/../color")" = 400`,
].join(" && ");

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
  await waitFor("nginx has used three addresses", async () => {
    const lines = (await stack.docker("logs", stack.nginxContainer)).stdout
      .split("\n")
      .filter((line) => line.includes(`color=${color}`) && line.includes("run=0"));
    return new Set(lines.flatMap((line) => line.match(/upstream=(10\.\S+)/)?.[1] ?? [])).size >= 3;
  });

  assert.equal(failures(await load.stop()), []);
});

swarmTests(
  "the next release repairs a killed rollback; after one that cannot push, a rollback starts the service of the previous release as it is",
  async (bed) => {
    const { stack } = bed;
    const load = startPosts(bed);
    const from = await serving(bed);
    const color = getInactiveColor(from);
    const killIn = async (step: string, env: Record<string, string> = {}): Promise<readonly string[]> => {
      const run = startRun(stack, "rollback", env, stack.launcher);
      await run.waitForStep(step);
      run.kill("SIGKILL");
      await run.ended;
      return run.steps;
    };
    assert.ok((await killIn("mark")).includes(`recreate ${color}`)); // the color that Compose ran is a service now
    assert.is(await stack.containerStatus(color), "absent");
    assert.is(JSON.parse((await stack.get()).body).version, "0.9.0");

    const unreachable = { REGISTRY: "127.0.0.1:1" };
    const notPushed = await stack.deploy([], { ...(await version(bed, "0.9.3")), ...unreachable });
    assert.is(notPushed.exitCode, 1, notPushed.stdall);
    assert.match(notPushed.stdall, new RegExp(`✓ stop ${from} [^]*build ${from}`), "repaired first");
    assert.match(notPushed.stderr, "Docker failed while pushing");
    assert.is(await serving(bed), color);
    const afterRepair = await statusOf(stack);
    assert.equal(afterRepair.drift, []);
    assert.equal([runningIn(afterRepair.colors[color]), runningIn(afterRepair.colors[from])], [3, 0]);

    const without = { LOOP_API_CONTEXT: "/nonexistent", ...unreachable };
    await killIn(`start ${from}`, { ...without, REPLICAS: "2" });
    const repaired = await succeed(stack.rollback([], without)); // with its own REPLICAS
    assert.match(repaired, new RegExp(`✓ stop ${from} [^]*✓ start ${from} `));
    assert.is(JSON.parse((await stack.get()).body).version, "0.9.1");
    const { colors, drift } = await statusOf(stack);
    assert.equal(drift, []);
    assert.equal([runningIn(colors[from]), runningIn(colors[color])], [3, 0]);
    await waitFor("there were many requests", async () => load.shots.length > 1000, 60);
    assert.equal(failures(await load.stop()), []);
  },
);

swarmTests("sessions stay with their replica, through a release", async (bed) => {
  const { stack } = bed;
  await succeed(stack.deploy([], await sessionApi(bed)));
  const from = await serving(bed);
  const sessions = await startSessions(url(bed), {
    count: 6,
    thinkMs: 300,
    slowSeconds: 0.5,
    listen: false,
  });
  bed.loads.push(sessions);
  await sleep(1000);
  const output = await succeed(stack.deploy());
  assert.match(output, `${from} still serves its sessions`);
  const before = sessions.report();
  await sleep(1000);
  const after = sessions.report();
  assert.ok(after.calls > before.calls);
  assert.equal({ failures: after.failures, gaps: after.gaps }, { failures: {}, gaps: 0 });
  for (const { colors } of after.sessions) assert.equal(colors, [from]);

  // As when all its nodes fail: its sessions are gone.
  const [{ id } = { id: "" }] = after.sessions;
  await stack.docker("service", "scale", "--detach", `${stack.project}-api-${from}=0`);
  const call = () =>
    fetch(`${url(bed)}/mcp`, { method: "POST", headers: { "mcp-session-id": id }, body: "{}" });
  await waitFor("a client learns that its session is gone", async () => (await call()).status === 404, 30);
  assert.is(await serving(bed), getInactiveColor(from));
  bed.loads.splice(0);
  await sessions.stop();
  await succeed(stack.endSessions(["--now"]));
});

swarmTests("on another manager, a run refuses", async (bed) => {
  const { stack } = bed;
  const before = await serving(bed);
  const name = `${stack.project}-api-${before}`;
  const label = async () =>
    (
      await stack.docker("service", "inspect", "--format", '{{index .Spec.Labels "loop.manager"}}', name)
    ).stdout.trim();
  const own = await label();
  await stack.docker("service", "update", "--detach", "--label-add", "loop.manager=another", name);
  const run = await stack.deploy();
  assert.is(run.exitCode, 2, run.stdall);
  assert.match(run.stderr, `The service ${name} is managed from another node of the swarm`);
  const [, adopt = "false"] = run.stderr.match(/lost for good: (.*), then run this again/) ?? [];
  await $({ quiet: true, env: stack.env })`sh -c ${adopt}`;
  assert.is(await label(), own);
});

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
  const replicas = ["--format", "{{.Spec.Mode.Replicated.Replicas}}", `${stack.project}-api-${color}`];
  assert.is((await stack.docker("service", "inspect", ...replicas)).stdout.trim(), "3");
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
