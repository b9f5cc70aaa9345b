import { spawn } from "node:child_process";
import { chmod, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { which } from "zx/core";
import {
  addVaultFile,
  createReleasedScratch,
  freePort,
  type Scratch,
  waitFor,
} from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import type { Finding } from "../../lib/doctor/finding.ts";
import type { Report } from "../../lib/doctor/text.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { suite } from "../suite.ts";

const doctor = suite<{ stack: Scratch }>("the doctor");
doctor.before(async (context) => {
  const stack = await createReleasedScratch("doctor");
  await addVaultFile(stack);
  Object.assign(stack.env, { HEALTH_RETRIES: "8", VERIFY_SECONDS: "0" });
  context.stack = stack;
});
doctor.after(({ stack }) => stack.remove());

/** Everything of a stack that the doctor could leave: in Docker, and in its folders. */
async function belongings({ docker, project, folder }: Scratch): Promise<string> {
  const lists = await Promise.all([
    docker("ps", "--all", "--format", "{{.Names}} {{.ID}} {{.Status}}", "--filter", `name=${project}`),
    docker("network", "ls", "--format", "{{.Name}} {{.ID}}", "--filter", `name=${project}`),
    docker("volume", "ls", "--format", "{{.Name}}", "--filter", `name=${project}`),
    docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--filter", `reference=${project}*`),
  ]);
  const files = (await readdir(folder, { recursive: true })).sort();
  const lines = lists.flatMap(({ stdout }) => stdout.split("\n"));
  // For how long a container has run does not matter, nor does the order of images of the same second.
  const items = lines.map((line) => line.replace(/^(\S+ \S+ \w+).*$/, "$1")).sort();
  return [...items, ...files].join("\n");
}

/** Runs the doctor, and checks that it leaves nothing behind. Returns a function that finds a check. */
async function examine(
  stack: Scratch,
  env: Record<string, string> = {},
  args: string[] = [],
): Promise<{ exitCode: number | null; findings: readonly Finding[]; of(check: string): Finding }> {
  const before = await belongings(stack);
  const { exitCode, stdout, stdall } = await stack.doctor(["--json", ...args], env);
  assert.is(await belongings(stack), before, stdall);
  assert.ok(stdout.startsWith("{"), stdall);
  const { findings }: Report = JSON.parse(stdout);
  const of = (check: string): Finding =>
    findings.find((one) => one.check === check) ?? assert.unreachable(`no ${check}: ${stdout}`) ?? never();
  return { exitCode, findings, of };
}

const never = (): never => {
  throw new Error("unreachable");
};

/** Checks the level, the text and the next step of a finding. */
function assertFinding(
  finding: Finding,
  level: Finding["level"],
  seen: string | RegExp,
  next: string | RegExp,
): void {
  assert.is(finding.level, level, JSON.stringify(finding));
  assert.match(finding.finding, seen);
  assert.match(finding.next ?? "", next);
}

doctor("on a healthy machine, all is well, and the serving color is not touched", async ({ stack }) => {
  const before = await stack.field(`${stack.project}-api-blue`, "{{.Id}} {{.State.StartedAt}}");
  const { exitCode, findings, of } = await examine(stack);
  // Where cron finds no node depends on this machine.
  const notOk = findings.filter(({ level, check }) => level !== "ok" && check !== "cron PATH");
  assert.equal(notOk, []);
  assert.is(exitCode, 0);
  assert.match(of("nginx port").finding, "in use by this stack");
  assert.match(of("green port").finding, "is free");
  assert.match(of("health").finding, /healthy after \d+\.\d s: HTTP 200/);
  assert.match(of("idle timeout").finding, "stayed open");
  assert.match(of("sessions").finding, "loop-api 1.0.0, revision 2025-11-25, no sessions");
  assert.is(await stack.field(`${stack.project}-api-blue`, "{{.Id}} {{.State.StartedAt}}"), before);
});

doctor("--build builds the image for the trial, and removes it", async ({ stack }) => {
  const text = await stack.doctor(["--build"], { STATE_DIR: join(stack.folder, "new") });
  assert.is(text.exitCode, 0, text.stdall);
  assert.match(text.stdout, /^✓ trial {10}loop-test-\S+-doctor:trial runs, with a read-only vault/m);
  assert.match(text.stdout, /^\d+ checks: \d+ ok, \d warnings?, 0 problems$/m);
  const { stdout } = await stack.docker("images", "--quiet", `${stack.project}-doctor`);
  assert.is(stdout, "");
});

doctor("faults of folders, ports, limits and nginx are found in one run", async ({ stack }) => {
  const { folder, env, project, docker } = stack;
  const server = createServer().listen(Number(env.GREEN_PORT), "127.0.0.1");
  const blocked = String(await freePort());
  const blocker = `${project}-blocker`;
  await docker("run", "-d", "--name", blocker, "-p", `127.0.0.1:${blocked}:80`, "nginx:1.30", "sleep", "60");
  const configuration = join(folder, "nginx/nginx-blue-green.conf");
  const good = await readFile(configuration, "utf8");
  await writeFile(configuration, good.replace("server_tokens off;", "server_tokens perhaps;"));
  await chmod(env.STATE_DIR ?? "", 0o777);
  const hooks = join(folder, "hooks");
  await mkdir(hooks);
  await writeFile(join(hooks, "pre-build"), "#!/bin/sh\n", { mode: 0o644 });
  await mkdir(join(folder, "vault/oauth"));
  await mkdir(join(folder, "sources"));

  const planted = {
    BLUE_PORT: blocked,
    API_MEMORY: "9000g",
    HOOKS_PATH: hooks,
    OAUTH_DATA_PATH: join(folder, "vault/oauth"),
    LOOP_API_CONTEXT: join(folder, "sources"),
    COMPOSE_FILE: join(folder, "docker-compose.blue-green.yml"),
  };
  const { exitCode, of } = await examine(stack, planted).finally(async () => {
    server.close();
    await docker("rm", "--force", blocker);
    await writeFile(configuration, good);
    await chmod(env.STATE_DIR ?? "", 0o700);
    const added = [hooks, join(folder, "vault/oauth"), join(folder, "sources")];
    await Promise.all(added.map((path) => rm(path, { recursive: true })));
  });

  assert.is(exitCode, 1);
  assertFinding(of("green port"), "problem", `(pid ${process.pid})`, "set GREEN_PORT to a free port");
  assertFinding(
    of("blue port"),
    "problem",
    `held by the container ${blocker}`,
    "set BLUE_PORT to a free port",
  );
  assertFinding(of("nginx"), "problem", 'invalid value "perhaps"', join(folder, "nginx"));
  assertFinding(of("state folder"), "problem", "its mode is 777", "chmod 700");
  assertFinding(of("hooks"), "problem", "is not executable", "chmod +x");
  assertFinding(of("vault"), "warning", "overlap", "Point OAUTH_DATA_PATH");
  assertFinding(of("memory"), "warning", "API_MEMORY=9000g", "lower API_MEMORY");
  assertFinding(of("image"), "problem", "sources/Dockerfile does not exist", "Set LOOP_API_CONTEXT");
  assertFinding(of("not checked"), "warning", "trial, health, idle timeout, sessions", "image");
});

/** Creates a docker command of an old version on an old kernel, with an nginx that is too old. Returns its path. */
async function createOldDocker({ folder }: Scratch, version: string): Promise<string> {
  const command = join(folder, `docker-${version}`);
  const script = `#!/bin/sh
case "$*" in
  version*) echo ${version};;
  "info --format {{.MemoryLimit}}"*) echo false false false;;
  run*nginx*) echo nginx version: nginx/1.24.0 >&2;;
  *) exec ${which.sync("docker")} "$@";;
esac
`;
  await writeFile(command, script, { mode: 0o755 });
  return command;
}

doctor("an engine that is too old is found", async ({ stack }) => {
  const { of } = await examine(stack, { DOCKER_CMD: await createOldDocker(stack, "19.03.15") });
  assertFinding(of("engine"), "problem", "Docker 19.03.15 is too old", "Update it");
});

doctor(
  "a kernel and an nginx that are too old, a compose file that Compose rejects, and an image that cannot be pulled are found in one run",
  async ({ stack }) => {
    const broken = join(stack.folder, "broken.yml");
    await writeFile(broken, "services:\n  loop-api-blue: { memory: 1 }\n");
    const { of } = await examine(stack, {
      DOCKER_CMD: await createOldDocker(stack, "20.10.0"),
      COMPOSE_FILE: `${stack.env.COMPOSE_FILE}:${broken}`,
      LOOP_API_IMAGE: "127.0.0.1:1/me/api:1",
    });
    assert.is(of("engine").level, "ok");
    assertFinding(of("limits"), "warning", "memory (API_MEMORY) and processes", "docker stats");
    assertFinding(of("nginx"), "problem", "has nginx 1.24.0; 1.29.7 or newer", "Set NGINX_IMAGE");
    assertFinding(of("Compose"), "problem", /Compose cannot read .*memory/s, "COMPOSE_FILE");
    assertFinding(of("image"), "problem", "127.0.0.1:1/me/api:1 cannot be pulled", "Check the network");
  },
);

doctor(
  "an engine that is not reachable, and no flock, perl or python3 for the lock, end no other check",
  async ({ stack }) => {
    const bin = join(stack.folder, "bin");
    await mkdir(bin);
    await symlink(which.sync("docker"), join(bin, "docker"));
    const { exitCode, of } = await examine(stack, { PATH: bin, DOCKER_HOST: "unix:///nonexistent.sock" });
    assert.is(exitCode, 1);
    assertFinding(of("lock program"), "problem", "none of flock, perl, python3 is in PATH", "Install flock");
    assertFinding(of("engine"), "problem", "Docker is not reachable", "DOCKER_HOST");
    assert.is(of("vault").level, "ok");
    const skipped = of("not checked");
    assertFinding(skipped, "warning", "Compose, limits, memory", "First correct: lock program, engine.");
  },
);

doctor("wrong settings are a finding, and what can still be checked is checked", async ({ stack }) => {
  const wrong = await examine(stack, { VERIFY_SECONDS: "soon" });
  assert.is(wrong.exitCode, 1);
  assertFinding(wrong.of("settings"), "problem", 'VERIFY_SECONDS is "soon"', "Correct them");
  assert.is(wrong.of("lock program").level, "ok");
  assert.match(wrong.of("not checked").finding, "engine");

  const inside = await examine(stack, { VAULT_PATH: stack.folder });
  assertFinding(inside.of("settings"), "problem", "inside VAULT_PATH", "Correct them");
  assert.match(inside.of("not checked").finding, "trial"); // it would run what a container can write
});

doctor("a vault that is missing is found, and no trial is started", async ({ stack }) => {
  const vault = stack.env.VAULT_PATH ?? "";
  await rename(vault, `${vault}-away`);
  const { of } = await examine(stack).finally(() => rename(`${vault}-away`, vault));
  assertFinding(of("settings"), "problem", "is the volume mounted?", "Correct them");
  assertFinding(of("vault"), "problem", "does not exist", "Mount its volume");
  assert.match(of("not checked").finding, "trial");
});

doctor("an API that is unhealthy, ends, or closes idle connections early is found", async ({ stack }) => {
  const sick = await examine(stack, { LOOP_FAULT: "unhealthy" });
  assert.is(sick.exitCode, 1);
  assertFinding(sick.of("health"), "problem", /not healthy within 8 s.*unhealthy/, "vault_exists");
  const ending = await examine(stack, { LOOP_FAULT: "exit" });
  assertFinding(
    ending.of("health"),
    "problem",
    /ended with exit code 1; its log: .*LOOP_FAULT=exit/s,
    "its log",
  );
  assert.match(ending.of("not checked").finding, "idle timeout, sessions");

  const impatient = join(stack.folder, "impatient.yml");
  const server = ["python3", "-m", "uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8081"];
  const command = JSON.stringify([...server, "--timeout-keep-alive", "1"]);
  await writeFile(impatient, `services: { loop-api-blue: { command: ${command} } }\n`);
  const { of } = await examine(stack, {
    COMPOSE_FILE: `${stack.env.COMPOSE_FILE}:${impatient}`,
    API_IDLE_SECONDS: "4",
  });
  await rm(impatient);
  // Measured from the last byte that arrived, so a busy machine measures less than 1 s.
  assertFinding(of("idle timeout"), "problem", "API_IDLE_SECONDS=4", /Set API_IDLE_SECONDS=(1|0\.9)\b/);
});

doctor("while a run is in progress, no trial is started", async ({ stack }) => {
  const lock = await takeLock(join(stack.stateDir, "lock"), "deploy", assert.unreachable);
  const { exitCode, of } = await examine(stack);
  lock.end("nothing");
  assert.is(exitCode, 0);
  assertFinding(of("trial"), "warning", "a deploy is in progress", "when it has ended");
});

doctor("a run that begins while the image is built is seen before the trial starts", async ({ stack }) => {
  const command = join(stack.folder, "docker");
  const marker = join(stack.folder, "built");
  const real = which.sync("docker");
  // The end of the build waits until the lock is taken.
  const script = `#!/bin/sh
case "$*" in
  *" build loop-api-blue") ${real} "$@" || exit; : > ${marker}; while [ -e ${marker} ]; do sleep 0.1; done;;
  *) exec ${real} "$@";;
esac
`;
  await writeFile(command, script, { mode: 0o755 });
  const examined = stack.doctor(["--json", "--build"], { DOCKER_CMD: command });
  await waitFor("the image is built", async () => (await readdir(stack.folder)).includes("built"), 60);
  const lock = await takeLock(join(stack.stateDir, "lock"), "deploy", assert.unreachable);
  await rm(marker);
  const { stdout } = await examined;
  lock.end("nothing");
  await rm(command);
  const { findings }: Report = JSON.parse(stdout);
  const trial = findings.find(({ check }) => check === "trial");
  assert.match(trial?.finding ?? stdout, "a deploy is in progress");
  assert.not.ok(findings.some(({ check }) => check === "health"));
});

/** Creates a network, a volume and a container of a project. Returns a function that removes them. */
async function plantProject({ docker }: Scratch, project: string): Promise<() => Promise<void>> {
  const label = `com.docker.compose.project=${project}`;
  await docker("network", "create", "--label", label, `${project}_other`);
  await docker("volume", "create", "--label", label, `${project}_data`);
  await docker("create", "--label", label, "--name", `${project}-trial`, "nginx:1.30");
  return async () => {
    await docker("rm", `${project}-trial`);
    await docker("network", "rm", `${project}_other`);
    await docker("volume", "rm", `${project}_data`);
  };
}

for (const signal of ["SIGINT", "SIGKILL"] as const) {
  doctor(
    `${signal} during a trial leaves nothing behind${signal === "SIGINT" ? ", removes what an earlier doctor left, and keeps a project with a similar name" : ""}`,
    async ({ stack }) => {
      const removeSimilar = await plantProject(stack, `${stack.project}-doctor`);
      const before = await belongings(stack);
      if (signal === "SIGINT") await plantProject(stack, `${stack.project}-doctor-0123abcd`);
      const [command, ...args] = scriptCommand("doctor");
      const child = spawn(command, args, {
        env: { ...stack.env, LOOP_FAULT: "slow-start=60", HEALTH_RETRIES: "60" },
        stdio: "ignore",
      });
      const ended = new Promise((resolve) => child.once("exit", resolve));
      const filter = ["--filter", `name=${stack.project}-doctor-`, "--filter", "status=running"];
      const runs = async () => (await stack.docker("ps", "--quiet", ...filter)).stdout !== "";
      await waitFor("the trial runs", runs, 30).finally(() => child.kill(signal));
      assert.is(await ended, signal === "SIGINT" ? 130 : null);
      if (signal === "SIGKILL")
        await waitFor("the trial is removed", async () => (await belongings(stack)) === before, 60);
      assert.is(await belongings(stack), before);
      await removeSimilar();
    },
  );
}

doctor("a wrong option is a usage error", async ({ stack }) => {
  const run = await stack.doctor(["--jason"]);
  assert.is(run.exitCode, 2, run.stdall);
});
doctor.run();
