import { lstat, mkdir, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createReleasedScratch, createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { type Color, getInactiveColor } from "../../lib/color.ts";
import { readStatus } from "../../lib/release/status.ts";
import { describeStatus } from "../../lib/release/status-text.ts";
import { readOnlyContext } from "../../lib/run/context.ts";
import { readHistory } from "../../lib/run/history.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings, ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

/** Two releases, and then failures: from the second release on, blue serves at the end of each test until the rollback. */
const deploys = suite<{ stack: Scratch; link: string; standby: string; goodImage: string }>("deploy");
deploys.before(async (context) => {
  context.stack = await createScratch("deploy");
  context.link = join(context.stack.folder, "nginx/active-upstream.conf");
});
deploys.after(({ stack }) => stack.remove());

const startTimes = ({ field, nginxContainer, project }: Scratch) =>
  Promise.all([nginxContainer, `${project}-auth`].map((name) => field(name, "{{.State.StartedAt}} {{.Id}}")));

deploys(
  "the first release on an empty machine goes to green and creates the state file",
  async ({ stack }) => {
    const run = await stack.deploy();
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, "does not run: starting it");
    assert.match(run.stdout, "Released blue → green");
    assert.match(run.stdout, /^\d{4}-\d\d-\d\dT[\d:.]+Z ✓ build green/m);
    assert.is(await stack.readStateFile(), "green\n");
    assert.equal(await stack.running(), ["green"]);
    const { status, color, body } = await stack.get();
    assert.equal([status, color, JSON.parse(body).color], [200, "green", "green"]);
  },
);

deploys(
  "the second release goes to blue, even if the state file says so, and does not restart nginx or auth",
  async ({ stack }) => {
    await writeFile(stack.stateFile, "blue\n"); // green serves
    const serving = await stack.field(`${stack.project}-api-green`, "{{.Id}}");
    const before = await startTimes(stack);
    const run = await stack.deploy([], await stack.apiVersion("2.0.0"));
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stderr, "the state file says blue, but nginx serves green");
    assert.is(await stack.field(`${stack.project}-api-green`, "{{.Id}}"), serving, "green was replaced");
    assert.is(await stack.readStateFile(), "blue\n");
    assert.equal(await stack.running(), ["blue"]);
    const { color, body } = await stack.get();
    assert.equal([color, JSON.parse(body).version], ["blue", "2.0.0"]);
    assert.equal(await startTimes(stack), before);
    assert.not.match(run.stdall, "still serves its sessions");
  },
);

/** The containers, images and files of a stack, in a form that does not differ between stacks. */
async function tracesOf({ folder, project, docker, nginxContainer, stateDir }: Scratch): Promise<string[]> {
  const containers = [
    nginxContainer,
    ...["auth", "api-blue", "api-green"].map((part) => `${project}-${part}`),
  ];
  const images = ["blue", "green"].map((color) => `${project}-api:${color}`);
  const service = '{{index .Config.Labels "com.docker.compose.service"}}';
  const state = `${service} {{.State.Running}} {{.HostConfig.RestartPolicy.Name}} {{.Config.Image}}`;
  const inspected = await Promise.all([
    docker("inspect", "--format", state, ...containers),
    docker("image", "inspect", "--format", `${service} {{.RepoTags}}`, ...images),
  ]);
  const lines = inspected.flatMap(({ stdout }) => stdout.trim().split("\n"));
  for (const part of ["nginx", "state", "vault", "oauth"]) {
    for (const name of await readdir(join(folder, part), { recursive: true })) {
      const file = join(folder, part, name);
      const status = await lstat(file);
      const isGenerated = /(active-color|lock|access\.conf|connections\.conf)$/.test(name);
      const content = status.isSymbolicLink() ? readlink(file) : isGenerated ? readFile(file, "utf8") : "";
      lines.push(`${part}/${name} ${(status.mode & 0o777).toString(8)} ${await content}`);
    }
  }
  const runs = await readHistory(join(stateDir, "history.jsonl"));
  for (const { verb, from, to, result } of runs) lines.push(`${verb} ${from} ${to} ${result}`);
  return lines.map((line) => line.replaceAll(folder, "FOLDER").replaceAll(project, "PROJECT")).toSorted();
}

deploys("createReleasedScratch, which most tests use, leaves what two releases leave", async ({ stack }) => {
  const shortcut = await createReleasedScratch("shortcut");
  try {
    assert.equal(await tracesOf(shortcut), await tracesOf(stack));
  } finally {
    await shortcut.remove();
  }
});

async function assertServes(
  { stack, link }: { stack: Scratch; link: string },
  serving: Color,
  other: "exited" | "running" = "exited",
): Promise<void> {
  const { status, color } = await stack.get();
  assert.equal([status, color], [200, serving]);
  assert.is(await stack.containerStatus(serving), "running");
  assert.is(await stack.containerStatus(getInactiveColor(serving)), other);
  assert.is(await stack.readStateFile(), `${serving}\n`);
  assert.is(await readlink(link), `${serving}-upstream.conf`);
}

/** Changes when green is replaced or started. */
const standbyOf = ({ field, project }: Scratch) =>
  field(`${project}-api-green`, "{{.Id}} {{.State.StartedAt}}");

deploys("all wrong settings are listed; the run exits with 2 and changes nothing", async (context) => {
  context.standby = await standbyOf(context.stack);
  const run = await context.stack.deploy([], {
    NGINX_PORT: "eighty",
    VERIFY_SECONDS: "-1",
    VAULT_PATH: "/not/mounted",
  });
  assert.is(run.exitCode, 2);
  for (const name of ["NGINX_PORT", "VERIFY_SECONDS", "VAULT_PATH"]) assert.match(run.stderr, name);
  await assertServes(context, "blue");
  assert.is(await standbyOf(context.stack), context.standby);
});

deploys("an unknown option exits with 2; --help exits with 0 and lists the exit codes", async ({ stack }) => {
  const unknown = await stack.deploy(["--force"]);
  assert.is(unknown.exitCode, 2);
  assert.match(unknown.stderr, "--force");
  const help = await stack.deploy(["--help"]);
  assert.is(help.exitCode, 0);
  assert.match(help.stdout, "3 manual intervention needed");
});

deploys("an unreachable Docker and a missing Compose are reported differently", async (context) => {
  await writeFile(join(context.stack.folder, ".bashrc"), "echo read by a shell >&2\n");
  const unreachable = await context.stack.deploy([], {
    HOME: context.stack.folder, // shells must not read the .bashrc in it
    DOCKER_HOST: `unix://${context.stack.folder}/none.sock`,
  });
  assert.is(unreachable.exitCode, 1);
  assert.match(unreachable.stderr, "Docker is not reachable");
  assert.match(unreachable.stderr, `or DOCKER_HOST, which is unix://${context.stack.folder}/none.sock`);
  assert.not.match(unreachable.stderr, "read by a shell");

  const withoutCompose = join(context.stack.folder, "docker-without-compose");
  await writeFile(withoutCompose, '#!/bin/sh\n[ "$1" = compose ] && exit 1\necho 20.10.23\n', {
    mode: 0o755,
  });
  const missing = await context.stack.deploy([], { DOCKER_CMD: withoutCompose });
  assert.is(missing.exitCode, 1);
  assert.match(missing.stderr, "Docker Compose v2 is missing");
  assert.match(missing.stderr, "Next: Update Container Manager");
  await assertServes(context, "blue");
  assert.is(await standbyOf(context.stack), context.standby);
});

deploys(
  "a failed build shows its output and the free disk space; an invalid state file and a link that a killed run left on the idle color are corrected before",
  async (context) => {
    const { stack } = context;
    await writeFile(stack.stateFile, "purple\n");
    await replaceLink(context.link, "green-upstream.conf");
    const broken = join(stack.folder, "broken");
    await mkdir(broken);
    await writeFile(join(broken, "Dockerfile"), "FROM debian:trixie-slim\nRUN echo no such spoon && false\n");
    const run = await stack.deploy([], { LOOP_API_CONTEXT: broken });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "Build failed, check disk space on NAS");
    assert.match(run.stderr, "no such spoon");
    assert.match(run.stderr, /GiB free in \//);
    assert.match(
      run.stderr,
      `The state file ${stack.stateFile} says "purple\\n", neither blue nor green; nginx serves blue: correcting it`,
    );
    assert.match(run.stderr, "the active link points at green, but nginx serves blue: correcting it");
    await assertServes(context, "blue");
    assert.is(await standbyOf(context.stack), context.standby);
  },
);

deploys(
  "a port held by another program is reported with the process, and nothing is started",
  async (context) => {
    const { stack } = context;
    const server = createServer().listen(Number(stack.env.GREEN_PORT), "127.0.0.1");
    const run = await stack.deploy();
    server.close();
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, "Port conflict detected, check running containers");
    assert.match(run.stderr, `(pid ${process.pid})`);
    await assertServes(context, "blue");
    assert.is(await standbyOf(context.stack), context.standby);
  },
);

deploys(
  "a failed health check shows the last finding and the log, and the new color is stopped; if the vault is not accessible, the error names the path to check",
  async (context) => {
    const run = await context.stack.deploy([], { LOOP_FAULT: "hide-vault", HEALTH_RETRIES: "10" });
    assert.is(run.exitCode, 1);
    assert.match(run.stderr, "Health check failed, rollback not performed");
    assert.match(run.stderr, /Not healthy within 10 s; last probe: .*HTTP 503.*vault not accessible/);
    assert.match(run.stderr, "Uvicorn running on");
    assert.match(run.stderr, `Check that ${context.stack.env.VAULT_PATH} (VAULT_PATH) is mounted`);
    await assertServes(context, "blue");
  },
);

deploys(
  "a container that keeps exiting fails the health check long before its full time; status shows it as that of a failed release",
  async (context) => {
    const since = performance.now();
    const run = await context.stack.deploy([], {
      LOOP_FAULT: "exit",
      HEALTH_RETRIES: "30",
      HEALTH_INTERVAL: "10",
    });
    assert.is(run.exitCode, 1);
    assert.ok(performance.now() - since < 150_000, `took ${performance.now() - since} ms of 300,000`);
    assert.match(run.stderr, "Health check failed, rollback not performed");
    assert.match(run.stderr, /restarted \d+ times during the check/);
    assert.match(run.stderr, "LOOP_FAULT=exit, ending with status 1");
    await assertServes(context, "blue");
    const settings = loadSettings(context.stack.env, "/nonexistent", "nothing");
    const status = await readStatus(readOnlyContext(settings, createLog()));
    assert.ok(status.colors.green.failed);
    assert.match(describeStatus(status), "failed release");
  },
);

deploys(
  "a release that starts nginx and auth, and cannot write the color record, takes the traffic back; a wrong state file does not make it replace the running color",
  async (context) => {
    const { stack } = context;
    await writeFile(stack.stateFile, "green\n"); // blue runs
    await stack.docker("stop", "--time", "1", stack.nginxContainer, `${stack.project}-auth`);
    const running = () => stack.field(`${stack.project}-api-blue`, "{{.Id}} {{.State.StartedAt}}");
    const before = await running();
    const blocker = join(stack.stateDir, ".active-color.tmp"); // the temporary file of the record
    await mkdir(blocker);
    const run = await stack.deploy();
    await rm(blocker, { recursive: true });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stdout, `${stack.nginxContainer} does not run: starting it`);
    assert.match(run.stdout, `${stack.project}-auth does not run: starting it`);
    assert.match(run.stderr, "the state file says green, but");
    assert.match(run.stdout, "✓ switch nginx to green");
    assert.match(run.stderr, "Cannot write green to the color record");
    assert.is(await running(), before, "blue was replaced");
    await assertServes(context, "blue");
  },
);

deploys("if both colors run and there is no terminal, the run aborts and stops nothing", async (context) => {
  const { stack } = context;
  await stack.compose("up", "-d", "loop-api-green");
  const run = await stack.deploy();
  assert.is(run.exitCode, 1);
  assert.match(run.stderr, "Both blue and green are running. Keep which? (blue/green/abort)");
  assert.match(run.stderr, "nginx serves blue now");
  assert.match(run.stderr, "--keep serving, blue or green; nothing was stopped");
  await assertServes(context, "blue", "running");
});

deploys(
  "if both colors run and there is a terminal, the run asks, moves the traffic to the answer, and continues; it waits for an API that starts slowly",
  async (context) => {
    const { stack } = context;
    const onTerminal = $({
      quiet: true,
      nothrow: true,
      env: { ...stack.env, LOOP_FAULT: "slow-start=4" },
      cwd: ROOT,
      input: "green\n",
    });
    const run = await onTerminal`script -qec ${scriptCommand("deploy-blue-green").join(" ")} /dev/null`;
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, "Both blue and green are running. Keep which? (blue/green/abort)");
    assert.match(run.stdout, "… build blue 0."); // the live line
    const order = [
      "switch nginx to green",
      "mark green as active",
      "stop blue",
      "build blue",
      "switch nginx to blue",
      "stop green",
    ];
    const output = stripVTControlCharacters(run.stdout);
    const positions = order.map((step) => output.indexOf(`✓ ${step}`));
    assert.equal(
      positions,
      positions.toSorted((a, b) => a - b),
      output,
    );
    assert.ok(!positions.includes(-1), output);
    await assertServes(context, "blue");
  },
);

deploys(
  "if nginx accepts the configuration but does not reload, the run exits with 3, restores the link and leaves the new color running",
  async (context) => {
    const { stack } = context;
    const configuration = join(stack.folder, "nginx/nginx-blue-green.conf");
    const good = await readFile(configuration, "utf8");
    const withZone = (key: string) =>
      good.replace("server_tokens off;", `server_tokens off; limit_req_zone ${key} zone=z:1m rate=1r/s;`);
    await writeFile(configuration, withZone("$host"));
    await stack.docker("restart", "--time", "1", stack.nginxContainer);
    await waitFor("nginx runs with the first key", async () => (await stack.get()).status === 200);
    await writeFile(configuration, withZone("$uri")); // `nginx -t` does not know that the running zone has another key
    context.goodImage = await stack.field(`${stack.project}-api-green`, "{{.Image}}");
    const run = await stack.deploy([], await stack.apiVersion("5.5.5"));
    await writeFile(configuration, good);
    assert.is(run.exitCode, 3, run.stdall);
    assert.match(run.stderr, "after 10 s an old worker is still accepting requests");
    await assertServes(context, "blue", "running");
  },
);

deploys(
  "if verification fails, the traffic goes back and is checked, and the new color is stopped; a rollback then goes to the last good build, not to the failed one",
  async (context) => {
    const { stack, goodImage } = context; // neither 5.5.5, which the run before left running, nor 6.6.6
    const run = await stack.deploy([], {
      ...(await stack.apiVersion("6.6.6")),
      LOOP_FAULT: "sick-after=12",
      VERIFY_SECONDS: "30",
    });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "Verification through nginx failed");
    assert.match(
      run.stderr,
      'Expected a healthy response from green. Got, from green: status is "unhealthy", expected "healthy"; HTTP 200: "{\\"status\\":\\"unhealthy',
    );
    assert.match(run.stdout, "✓ undo: switch nginx back to blue");
    await assertServes(context, "blue");

    const rollback = await stack.rollback();
    assert.is(rollback.exitCode, 0, rollback.stdall);
    await assertServes(context, "green");
    assert.is(JSON.parse((await stack.get()).body).version, "1.0.0");
    assert.is(await stack.field(`${stack.project}-api-green`, "{{.Image}}"), goodImage);
  },
);

deploys(
  "if nginx rejects the configuration, a run exits with 3, restores the link and leaves both colors running",
  async (context) => {
    const { stack } = context;
    await writeFile(join(stack.folder, "nginx/blue-upstream-sessions.conf"), "this is no nginx;\n");
    const run = await stack.rollback();
    assert.is(run.exitCode, 3, run.stdall);
    assert.match(run.stderr, "Nginx reload failed, manual intervention required");
    assert.match(run.stderr, 'unknown directive "this"');
    assert.match(run.stderr, `exec ${stack.nginxContainer} nginx -t -c /etc/nginx/nginx-blue-green.conf`);
    await assertServes(context, "green", "running");
  },
);
deploys.run();
