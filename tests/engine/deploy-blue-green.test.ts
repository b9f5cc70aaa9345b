import { mkdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { $ } from "zx";
import { createScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { ROOT } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";
import { suite } from "../suite.ts";

const releases = suite<{ stack: Scratch }>("deploy: releases");
releases.before(async (context) => {
  context.stack = await createScratch("deploy");
});
releases.after(({ stack }) => stack.remove());

const started = ({ field, nginxContainer, project }: Scratch) =>
  Promise.all([nginxContainer, `${project}-auth`].map((name) => field(name, "{{.State.StartedAt}} {{.Id}}")));

releases("the first on an empty machine goes to green and creates the state file", async ({ stack }) => {
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, "does not run: starting it");
  assert.match(run.stdout, "Released blue → green");
  assert.match(run.stdout, /^\d{4}-\d\d-\d\dT[\d:.]+Z ✓ build green/m);
  assert.is(await stack.marked(), "green\n");
  assert.equal(await stack.running(), ["green"]);
  const { status, color, body } = await stack.front();
  assert.equal([status, color, JSON.parse(body).color], [200, "green", "green"]);
});

releases("the second goes to blue; nginx and auth are not restarted", async ({ stack }) => {
  const before = await started(stack);
  const run = await stack.deploy([], await stack.apiVersion("2.0.0"));
  assert.is(run.exitCode, 0, run.stdall);
  assert.is(await stack.marked(), "blue\n");
  assert.equal(await stack.running(), ["blue"]);
  const { color, body } = await stack.front();
  assert.equal([color, JSON.parse(body).version], ["blue", "2.0.0"]);
  assert.equal(await started(stack), before);
});

releases("a lost state file does not make it build over the color that serves", async ({ stack }) => {
  await writeFile(stack.stateFile, "green\n"); // blue serves
  const id = await stack.field(`${stack.project}-api-blue`, "{{.Id}}");
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stderr, "the state file says green, but nginx serves blue");
  assert.is(
    await stack.field(`${stack.project}-api-blue`, "{{.Id}}"),
    id,
    "the blue that served was replaced",
  );
  assert.equal([await stack.marked(), (await stack.front()).color], ["green\n", "green"]);
});

releases("nor does a stopped nginx and a state file that is wrong", async ({ stack }) => {
  await writeFile(stack.stateFile, "blue\n"); // green runs
  await stack.docker("stop", "--time", "1", stack.nginxContainer);
  const id = await stack.field(`${stack.project}-api-green`, "{{.Id}} {{.State.StartedAt}}");
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stderr, "the state file says blue, but");
  assert.is(await stack.field(`${stack.project}-api-green`, "{{.Id}} {{.State.StartedAt}}"), id);
  assert.equal([await stack.marked(), (await stack.front()).color], ["blue\n", "blue"]);
});

releases("nginx and auth that are stopped are brought up, and it says so", async ({ stack }) => {
  await stack.docker("stop", "--time", "1", stack.nginxContainer, `${stack.project}-auth`);
  const run = await stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, `${stack.nginxContainer} does not run: starting it`);
  assert.match(run.stdout, `${stack.project}-auth does not run: starting it`);
  assert.equal([await stack.marked(), (await stack.front()).color], ["green\n", "green"]);
});
releases.run();

/** Blue serves at the start of each of these, and at the end. */
const failures = suite<{ stack: Scratch; link: string }>("deploy: failures");
failures.before(async (context) => {
  context.stack = await createScratch("failures");
  context.link = join(context.stack.folder, "nginx/active-upstream.conf");
  await mkdir(join(context.stack.folder, "vault/_build"));
  await writeFile(context.stack.stateFile, "green\n"); // so that the first release goes to blue
  const run = await context.stack.deploy();
  assert.is(run.exitCode, 0, run.stdall);
});
failures.after(({ stack }) => stack.remove());

async function assertBlueServes(
  { stack, link }: { stack: Scratch; link: string },
  green: string[],
): Promise<void> {
  const { status, color } = await stack.front();
  assert.equal([status, color], [200, "blue"]);
  assert.is(await stack.status("blue"), "running");
  assert.ok(
    green.includes(await stack.status("green")),
    `green is ${await stack.status("green")}, not ${green}`,
  );
  assert.is(await stack.marked(), "blue\n");
  assert.is(await readlink(link), "blue-upstream.conf");
}

failures("wrong settings are all listed, exit 2, nothing changes", async (context) => {
  const run = await context.stack.deploy([], {
    NGINX_PORT: "eighty",
    VERIFY_SECONDS: "-1",
    VAULT_PATH: "/not/mounted",
  });
  assert.is(run.exitCode, 2);
  for (const name of ["NGINX_PORT", "VERIFY_SECONDS", "VAULT_PATH"]) assert.match(run.stderr, name);
  await assertBlueServes(context, ["absent"]);
});

failures("an unknown option exits 2; --help exits 0 and names the exit codes", async ({ stack }) => {
  const unknown = await stack.deploy(["--force"]);
  assert.is(unknown.exitCode, 2);
  assert.match(unknown.stderr, "--force");
  const help = await stack.deploy(["--help"]);
  assert.is(help.exitCode, 0);
  assert.match(help.stdout, "3 manual intervention needed");
});

failures("Docker that does not answer and Compose that is missing are told apart", async (context) => {
  await writeFile(join(context.stack.folder, ".bashrc"), "echo read by a shell >&2\n");
  const unreachable = await context.stack.deploy([], {
    HOME: context.stack.folder, // a shell that read the owner's ~/.bashrc would run what stands there, at each command
    DOCKER_HOST: `unix://${context.stack.folder}/none.sock`,
  });
  assert.is(unreachable.exitCode, 1);
  assert.match(unreachable.stderr, "Docker is not reachable");
  assert.not.match(unreachable.stderr, "read by a shell");

  const withoutCompose = join(context.stack.folder, "docker-without-compose");
  await writeFile(withoutCompose, '#!/bin/sh\n[ "$1" = compose ] && exit 1\necho 20.10.23\n', {
    mode: 0o755,
  });
  const missing = await context.stack.deploy([], { DOCKER_CMD: withoutCompose });
  assert.is(missing.exitCode, 1);
  assert.match(missing.stderr, "Docker Compose v2 is missing");
  assert.match(missing.stderr, "Next: Update Container Manager");
  await assertBlueServes(context, ["absent"]);
});

failures(
  "a state file with anything but a color is reported and set right, whatever else fails",
  async (context) => {
    await writeFile(context.stack.stateFile, "purple\n");
    const run = await context.stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") }); // no Dockerfile
    assert.is(run.exitCode, 1);
    assert.match(
      run.stderr,
      `The state file ${context.stack.stateFile} says "purple\\n", neither blue nor green; nginx serves blue: correcting it`,
    );
    await assertBlueServes(context, ["absent"]);
  },
);

failures(
  "a link that a killed run left on the other color is set right, whatever else fails",
  async (context) => {
    await replaceLink(context.link, "green-upstream.conf");
    const run = await context.stack.deploy([], { LOOP_API_CONTEXT: join(ROOT, "docs") }); // no Dockerfile
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "the active link points at green, but nginx serves blue: correcting it");
    await assertBlueServes(context, ["absent"]);
  },
);

failures("a build that fails shows its output and the free space", async (context) => {
  const broken = join(context.stack.folder, "broken");
  await mkdir(broken);
  await writeFile(join(broken, "Dockerfile"), "FROM debian:trixie-slim\nRUN echo no such spoon && false\n");
  const run = await context.stack.deploy([], { LOOP_API_CONTEXT: broken });
  assert.is(run.exitCode, 1);
  assert.match(run.stderr, "Build failed, check disk space on NAS");
  assert.match(run.stderr, "no such spoon");
  assert.match(run.stderr, /GiB free in \//);
  await assertBlueServes(context, ["absent"]);
});

failures(
  "a port held by a stranger: the process or container is named, nothing is started",
  async (context) => {
    const { stack } = context;
    const server = createServer().listen(Number(stack.env.GREEN_PORT), "127.0.0.1");
    const byProcess = await stack.deploy();
    server.close();
    assert.is(byProcess.exitCode, 1);
    assert.match(byProcess.stderr, "Port conflict detected, check running containers");
    assert.match(byProcess.stderr, `(pid ${process.pid})`);

    const squatter = `${stack.project}-squatter`;
    await stack.docker(
      "run",
      "-d",
      "--rm",
      "--name",
      squatter,
      "-p",
      `${stack.env.GREEN_PORT}:80`,
      "nginx:1.30",
      "sleep",
      "60",
    );
    const byContainer = await stack.deploy();
    await stack.docker("rm", "--force", squatter);
    assert.is(byContainer.exitCode, 1);
    assert.match(byContainer.stderr, `is held by the container ${squatter}`);
    await assertBlueServes(context, ["absent"]);
  },
);

failures("health that never passes: the last finding, the log, the new one stopped", async (context) => {
  const run = await context.stack.deploy([], { LOOP_FAULT: "unhealthy", HEALTH_RETRIES: "6" });
  assert.is(run.exitCode, 1);
  assert.match(run.stderr, "Health check failed, rollback not performed");
  assert.match(run.stderr, "Not healthy within 6 s; last probe: HTTP 200");
  assert.match(run.stderr, "Uvicorn running on");
  await assertBlueServes(context, ["exited"]);
});

failures("a vault that is not accessible: the path to check is named", async (context) => {
  const run = await context.stack.deploy([], { LOOP_FAULT: "hide-vault", HEALTH_RETRIES: "6" });
  assert.is(run.exitCode, 1);
  assert.match(run.stderr, "vault not accessible");
  assert.match(run.stderr, `Check that ${context.stack.env.VAULT_PATH} (VAULT_PATH) is mounted`);
  await assertBlueServes(context, ["exited"]);
});

failures(
  "a container that ends over and over fails within seconds, not after the budget",
  async (context) => {
    const since = performance.now();
    const run = await context.stack.deploy([], {
      LOOP_FAULT: "exit",
      HEALTH_RETRIES: "30",
      HEALTH_INTERVAL: "10",
    });
    assert.is(run.exitCode, 1);
    assert.ok(performance.now() - since < 30_000, `took ${performance.now() - since} ms`);
    assert.match(run.stderr, "Health check failed, rollback not performed");
    assert.match(run.stderr, /restarted \d+ times during the check/);
    assert.match(run.stderr, "LOOP_FAULT=exit, ending with status 1");
    await assertBlueServes(context, ["exited"]);
  },
);

failures("an API that starts slowly is waited for", async (context) => {
  const { stack } = context;
  const run = await stack.deploy([], { LOOP_FAULT: "slow-start=4" });
  assert.is(run.exitCode, 0, run.stdall);
  assert.is((await stack.rollback()).exitCode, 0);
  await assertBlueServes(context, ["exited"]);
});

failures(
  "verification that fails: traffic goes back and is proven back, the new one is stopped",
  async (context) => {
    const run = await context.stack.deploy([], { LOOP_FAULT: "sick-after=5", VERIFY_SECONDS: "20" });
    assert.is(run.exitCode, 1, run.stdall);
    assert.match(run.stderr, "Verification through nginx failed");
    assert.match(
      run.stderr,
      'Expected a healthy response from green, got one from green: HTTP 200: "{\\"status\\":\\"unhealthy',
    );
    assert.match(run.stdout, "✓ undo: switch nginx back to blue");
    await assertBlueServes(context, ["exited"]);
  },
);

failures("a record that cannot be written: traffic goes back, the new one is stopped", async (context) => {
  const inTheWay = join(context.stack.stateDir, ".active-color.tmp"); // where the new file is written first
  await mkdir(inTheWay);
  const run = await context.stack.deploy();
  await rm(inTheWay, { recursive: true });
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "Cannot write green to the color record");
  await assertBlueServes(context, ["exited"]);
});

failures("both running, nobody to ask: aborts and stops nothing", async (context) => {
  const { stack } = context;
  await stack.compose("up", "-d", "loop-api-green");
  const run = await stack.deploy();
  assert.is(run.exitCode, 1);
  assert.match(run.stderr, "Both blue and green are running. Keep which? (blue/green/abort)");
  assert.match(run.stderr, "nginx serves blue now");
  assert.match(run.stderr, "--keep serving, blue or green; nothing was stopped");
  await assertBlueServes(context, ["running"]);
});

failures("both running, a terminal: asks, and goes on with the answer", async (context) => {
  const { stack } = context;
  const deploy = `node --import tsx ${join(ROOT, "scripts/deploy-blue-green.mts")}`;
  const onTerminal = $({ quiet: true, nothrow: true, env: stack.env, cwd: ROOT, input: "blue\n" });
  const run = await onTerminal`script -qec ${deploy} /dev/null`;
  assert.is(run.exitCode, 0, run.stdall);
  assert.match(run.stdout, "Both blue and green are running. Keep which? (blue/green/abort)");
  assert.match(run.stdout, "… build green 0."); // the live line
  assert.is((await stack.rollback()).exitCode, 0);
  await assertBlueServes(context, ["exited"]);
});

failures(
  "both running, --keep the one that does not serve: it gets the traffic first, then the release goes on",
  async (context) => {
    const { stack } = context;
    await stack.compose("up", "-d", "loop-api-green");
    const run = await stack.deploy(["--keep", "green"]);
    assert.is(run.exitCode, 0, run.stdall);
    const order = [
      "switch nginx to green",
      "mark green as active",
      "stop blue",
      "build blue",
      "switch nginx to blue",
      "stop green",
    ];
    const places = order.map((step) => run.stdout.indexOf(`✓ ${step}`));
    assert.equal(
      places,
      places.toSorted((a, b) => a - b),
      run.stdout,
    );
    assert.ok(!places.includes(-1), run.stdout);
    await assertBlueServes(context, ["exited"]);
  },
);

failures(
  "nginx that refuses the configuration: exit 3, link restored, the new one keeps running",
  async (context) => {
    const { stack } = context;
    const configuration = join(stack.folder, "nginx/green-upstream.conf");
    const good = await readFile(configuration, "utf8");
    await writeFile(configuration, "this is no nginx;\n");
    const run = await stack.deploy();
    await writeFile(configuration, good);
    assert.is(run.exitCode, 3, run.stdall);
    assert.match(run.stderr, "Nginx reload failed, manual intervention required");
    assert.match(run.stderr, 'unknown directive "this"');
    assert.match(run.stderr, `exec ${stack.nginxContainer} nginx -t -c /etc/nginx/nginx-blue-green.conf`);
    await assertBlueServes(context, ["running"]);
  },
);

failures("nginx that passes the test but does not reload: seen, exit 3, link restored", async (context) => {
  const { stack } = context;
  const configuration = join(stack.folder, "nginx/nginx-blue-green.conf");
  const good = await readFile(configuration, "utf8");
  const withZone = (key: string) =>
    good.replace("server_tokens off;", `server_tokens off; limit_req_zone ${key} zone=z:1m rate=1r/s;`);
  await writeFile(configuration, withZone("$host"));
  await stack.docker("restart", "--time", "1", stack.nginxContainer);
  await waitFor("nginx runs with the first key", async () => (await stack.front()).status === 200);
  await writeFile(configuration, withZone("$uri")); // `nginx -t` cannot see that the running zone has another key
  const run = await stack.deploy(["--keep", "blue"]);
  await writeFile(configuration, good);
  assert.is(run.exitCode, 3, run.stdall);
  assert.match(run.stderr, "after 10 s an old worker is still accepting requests");
  await assertBlueServes(context, ["running"]);
});
failures.run();
