import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { apiSettings } from "../../lib/api.ts";
import { docker } from "../../lib/docker/cli.ts";
import { UsageError } from "../../lib/errors.ts";
import type { Needs } from "../../lib/places.ts";
import { readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { checkComposeFiles, getHostPort, loadSettings, ROOT } from "../../lib/settings.ts";

const NO_FILE = "/nonexistent/.env.blue-green";

function errorsOf(environment: Record<string, string>, file = NO_FILE): string {
  try {
    loadSettings(environment, file);
  } catch (error) {
    assert.instance(error, UsageError);
    assert.is((error as UsageError).exitCode, 2);
    return (error as UsageError).details;
  }
  return assert.unreachable(JSON.stringify(environment)) as never;
}

test("without a settings file and with an empty environment, the documented defaults apply", () => {
  const settings = loadSettings({}, NO_FILE);
  assert.equal(settings.composeFiles, [join(ROOT, "docker-compose.blue-green.yml")]);
  assert.equal([settings.project, settings.nginxContainer, settings.nginxPort], ["loop", "loop-nginx", 8080]);
  assert.equal([getHostPort(settings, "blue"), getHostPort(settings, "green")], [8082, 8085]);
  assert.equal(settings.health, { retries: 30, interval: 10, timeout: 5 });
  assert.equal([settings.verifySeconds, settings.drainSeconds], [30, 30]);
  assert.is(settings.activeColorFile, join(settings.vaultPath ?? "", "_build/.active-color"));
  assert.is(settings.environment.NGINX_IMAGE, "nginx:1.30");
});

test("the environment overrides the file, the file overrides the defaults, and an empty value counts as unset", async () => {
  const file = join(await tempFolder("settings"), ".env.blue-green");
  await writeFile(file, 'NGINX_PORT=9000\nBLUE_PORT=9001\nGREEN_PORT=\nAPI_KEY="a b"\n# AUTH_PORT=1\n');
  const settings = loadSettings({ NGINX_PORT: "9002", BLUE_PORT: "" }, file);
  assert.equal([settings.nginxPort, settings.ports], [9002, { blue: 9001, green: 8085 }]);
  assert.is(settings.environment.API_KEY, "a b", "a variable of the owner must reach Compose");
  assert.is(settings.environment.NGINX_PORT, "9002");
});

test("variables that docker itself reads reach it from the file too, and the environment overrides them", async () => {
  const folder = await tempFolder("settings");
  const [file, DOCKER_CMD] = [join(folder, ".env.blue-green"), join(folder, "docker")];
  await writeFile(file, "DOCKER_HOST=unix:///of/the/file\nDOCKER_CONTEXT=of-the-file\n");
  await writeFile(DOCKER_CMD, '#!/bin/sh\necho "$DOCKER_HOST $DOCKER_CONTEXT"\n', { mode: 0o755 });
  const seen = async (environment: Record<string, string>) => {
    const settings = loadSettings({ DOCKER_CMD, ...environment }, file);
    return (await docker(readOnlyContext(settings, createLog()), ["version"])).stdout;
  };
  assert.is(await seen({}), "unix:///of/the/file of-the-file\n");
  assert.is(await seen({ DOCKER_HOST: "unix:///other" }), "unix:///other of-the-file\n");
});

test("the defaults of the state file and of nginx's name depend on the vault and the project", async () => {
  const vault = await tempFolder("settings");
  const settings = loadSettings({ VAULT_PATH: vault, COMPOSE_PROJECT_NAME: "second" }, NO_FILE);
  assert.is(settings.activeColorFile, join(vault, "_build/.active-color.second"));
  assert.equal(
    [settings.nginxContainer, settings.environment.NGINX_CONTAINER],
    ["second-nginx", "second-nginx"],
  );
});

test("each project has its own state folder, in the checkout", () => {
  const at = (project: string) => join(ROOT, ".state", project);
  for (const project of ["loop", "second"]) {
    const { stateDir, lockFile, historyFile, logFile } = loadSettings(
      { COMPOSE_PROJECT_NAME: project },
      NO_FILE,
    );
    assert.equal(
      [stateDir, lockFile, historyFile, logFile],
      [at(project), ...["lock", "history.jsonl", "blue-green.log"].map((name) => join(at(project), name))],
    );
  }
});

test("STATE_DIR and LOG_FILE must not be inside a folder that containers can write to, not even through a link", async () => {
  const folder = await tempFolder("settings");
  const [VAULT_PATH, OAUTH_DATA_PATH, alias] = ["vault", "oauth", "alias"].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  await mkdir(VAULT_PATH);
  await symlink(VAULT_PATH, alias);
  const exposedPaths = [VAULT_PATH, join(VAULT_PATH, "a/b"), join(OAUTH_DATA_PATH, "x"), join(alias, "x")];
  for (const STATE_DIR of exposedPaths)
    assert.match(
      errorsOf({ VAULT_PATH, OAUTH_DATA_PATH, STATE_DIR }),
      /^STATE_DIR is .*: containers can write to it, because it is inside (VAULT|OAUTH_DATA)_PATH/,
    );
  loadSettings({ VAULT_PATH, OAUTH_DATA_PATH, STATE_DIR: `${VAULT_PATH}-beside` }, NO_FILE);
  // Only a warning, because the example file once suggested such a path, and a nightly release must not fail for it.
  for (const LOG_FILE of exposedPaths) {
    const { logFile, stateDir, warnings } = loadSettings({ VAULT_PATH, OAUTH_DATA_PATH, LOG_FILE }, NO_FILE);
    assert.is(logFile, join(stateDir, "blue-green.log"));
    assert.is(warnings.length, 1);
    assert.match(
      warnings[0] ?? "",
      `LOG_FILE=${LOG_FILE} is ignored: containers can write to it, because it is inside`,
    );
  }
  const beside = loadSettings({ VAULT_PATH, OAUTH_DATA_PATH, LOG_FILE: join(folder, "log") }, NO_FILE);
  assert.equal([beside.logFile, beside.warnings], [join(folder, "log"), []]);
});

/** The settings that are rejected because containers can write to their paths. */
function exposed(environment: Record<string, string>, needs?: Needs): string[] {
  try {
    loadSettings(environment, NO_FILE, needs);
    return [];
  } catch (error) {
    const lines = (error as UsageError).details.split("\n");
    for (const line of lines) assert.match(line, "containers can write to it, because it is inside");
    return lines.map((line) => line.replace(/ is ".*$/, ""));
  }
}

test("files that root runs or changes must not be there either; a rollback rejects only those that it needs", async () => {
  const vault = await tempFolder("settings");
  const [sources, composeFile] = [join(vault, "api"), join(vault, "compose.yml")];
  await mkdir(sources);
  await writeFile(composeFile, "");
  const NGINX = "The folder of nginx's configuration";
  for (const needs of ["vault", "vault and sources"] as const)
    assert.equal(exposed({ VAULT_PATH: vault, HOOKS_PATH: sources }, needs), ["HOOKS_PATH"]);
  for (const mount of ["VAULT_PATH", "OAUTH_DATA_PATH"]) {
    const at = (path: string) => ({ [mount]: path });
    for (const name of ["LOOP_API_CONTEXT", "LOOP_AUTH_CONTEXT"]) {
      assert.equal(exposed({ ...at(vault), [name]: sources }), [name]);
      assert.equal(exposed({ ...at(vault), [name]: sources }, "vault"), []);
    }
    assert.equal(exposed({ ...at(vault), COMPOSE_FILE: composeFile }), [NGINX, "COMPOSE_FILE"]);
    assert.equal(exposed({ ...at(vault), COMPOSE_FILE: composeFile }, "vault"), [NGINX]);
    const withOverlay = { ...at(vault), COMPOSE_FILE: `docker-compose.blue-green.yml:${composeFile}` };
    assert.equal(exposed(withOverlay), ["COMPOSE_FILE"]);
    assert.equal(exposed(withOverlay, "vault"), []);
    assert.throws(
      () => checkComposeFiles(loadSettings(withOverlay, NO_FILE, "vault")),
      (error: unknown) => error instanceof UsageError,
    );
    for (const folder of [ROOT, join(ROOT, ".."), "/"])
      for (const needs of ["vault", "vault and sources"] as const)
        assert.equal(exposed(at(folder), needs), ["The checkout"], folder);
  }
  checkComposeFiles(loadSettings({}, NO_FILE)); // here the vault is inside the checkout, which is allowed
});

test("all wrong values are reported at once, each with its name", () => {
  const wrong: Record<string, string> = {
    NGINX_PORT: "0",
    BLUE_PORT: "65536",
    GREEN_PORT: "80.5",
    AUTH_PORT: "http",
    HEALTH_RETRIES: "0",
    HEALTH_INTERVAL: "0",
    HEALTH_TIMEOUT: "-1",
    SMOKE_SECONDS: "0",
    HOOKS_PATH: "/no/hooks",
    HOOK_SECONDS: "-1",
    VERIFY_SECONDS: "1e3",
    DRAIN_SECONDS: "NaN",
    COMPOSE_PROJECT_NAME: "Loop!",
    NGINX_CONTAINER: "-rm",
    VAULT_PATH: "/not/mounted",
    LOOP_API_CONTEXT: "/not/there",
    NGINX_BIND: "localhost",
    TRUSTED_PROXIES: "10.0.0.0/33",
    BODY_MAX: "100 MB",
    API_MEMORY: "5m",
    NGINX_MEMORY: "1.5g",
    AUTH_MEMORY: "6000",
    API_PIDS: "-1",
    API_TMP: "0",
  };
  const all = errorsOf(wrong);
  for (const [name, value] of Object.entries(wrong)) {
    assert.match(all, `${name} is "${value}": it `);
    assert.is(errorsOf({ [name]: value }).split("\n").length, 1);
  }
});

test("CANARY_PERCENT, which is written into an nginx file, accepts only what nginx understands", () => {
  for (const text of ["10%", "0.125", "51", "-1", "1e1", ".5"])
    assert.match(errorsOf({ CANARY_PERCENT: text }), "it must be a percentage from 0 to 50", text);
  assert.is(loadSettings({ CANARY_PERCENT: "0.25" }, NO_FILE).canary.percent, 0.25);
});

test("LOOP_API_IMAGE accepts what Docker can pull, and then the sources need not exist", () => {
  const digest = `@sha256:${"a".repeat(64)}`;
  for (const image of [
    "api",
    "me/api:1.4",
    `ghcr.io/me/api:1${digest}`,
    `localhost:5000/a/b_c/d-e${digest}`,
  ]) {
    const environment = { LOOP_API_IMAGE: image, LOOP_API_CONTEXT: "/nonexistent" };
    assert.is(loadSettings(environment, NO_FILE).apiImage, image);
  }
  const wrong = ["Me/Api", "--help", "api:", "a b", "me//api", "api@sha256:abc", `${"a/".repeat(200)}a`];
  for (const image of wrong) assert.match(errorsOf({ LOOP_API_IMAGE: image }), "it must be", image);
  assert.match(errorsOf({ LOOP_API_CONTEXT: "/nonexistent" }), "LOOP_API_CONTEXT is");
});

test("an empty LOOP_API_IMAGE overrides the file: to build once", async () => {
  const file = join(await tempFolder("settings"), ".env.blue-green");
  await writeFile(file, "LOOP_API_IMAGE=me/api:1\n");
  assert.equal(
    [{}, { LOOP_API_IMAGE: "" }].map((env) => loadSettings(env, file).apiImage),
    ["me/api:1", undefined],
  );
});

test("TRUSTED_PROXIES, which is written into an nginx file, accepts only addresses and networks", () => {
  for (const text of [
    "10.0.0.1; }",
    "10.0.0.1/8/8",
    "10.0.0",
    "proxy.lan",
    "fe80::1%eth0",
    "::1/129",
    "1.2.3.4/",
    "#",
  ])
    assert.match(errorsOf({ TRUSTED_PROXIES: text }), "it must be addresses or networks", text);
  const { trustedProxies } = loadSettings(
    { TRUSTED_PROXIES: "10.0.0.0/8, 192.0.2.1 2001:db8::/32" },
    NO_FILE,
  );
  assert.equal(trustedProxies, ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]);
  assert.equal(loadSettings({ TRUSTED_PROXIES: "" }, NO_FILE).trustedProxies, []);
});

test("requests to nginx go to the address that it listens on", () => {
  const url = (bind: string) => loadSettings({ NGINX_BIND: bind, NGINX_PORT: "81" }, NO_FILE).nginxUrl;
  assert.equal(["", "0.0.0.0", "127.0.0.1", "192.0.2.1"].map(url), [
    "http://127.0.0.1:81",
    "http://127.0.0.1:81",
    "http://127.0.0.1:81",
    "http://192.0.2.1:81",
  ]);
});

test("sizes are accepted in Compose's notation", () => {
  for (const text of ["0", "6m", "6291456", "6144k", "1G"])
    assert.is(loadSettings({ API_MEMORY: text }, NO_FILE).environment.API_MEMORY, text);
});

test("a file is rejected as VAULT_PATH", () => {
  assert.match(errorsOf({ VAULT_PATH: join(ROOT, "package.json") }), "VAULT_PATH");
});

test("the same port for two settings is rejected", () => {
  assert.match(errorsOf({ BLUE_PORT: "8080" }), "NGINX_PORT and BLUE_PORT are both 8080");
});

test("a missing compose file is reported by its path", () => {
  assert.match(errorsOf({ COMPOSE_FILE: "docker-compose.blue-green.yml:none.yml" }), join(ROOT, "none.yml"));
});

test("the example file is valid and contains every setting that Compose and the scripts read", async () => {
  const example = join(ROOT, ".env.blue-green.example");
  const settings = loadSettings({}, example);
  assert.equal(settings.ports, { blue: 8082, green: 8085 });
  const text = await readFile(example, "utf8");
  for (const name of Object.keys(settings.environment)) assert.match(text, new RegExp(`^#?${name}=`, "m"));
});

test("an empty HEALTH_EXPECT means any 2xx status, in the file and in the environment", async () => {
  const file = join(await tempFolder("settings"), ".env.blue-green");
  await writeFile(file, "HEALTH_EXPECT=\n");
  assert.equal(loadSettings({}, file).api.expect, {});
  assert.equal(loadSettings({ HEALTH_EXPECT: '{"ok":true}' }, file).api.expect, { ok: true });
  await writeFile(file, 'HEALTH_EXPECT={"ok":true,"db":{"up":1}}\n');
  assert.equal(loadSettings({}, file).api.expect, { ok: true, db: { up: 1 } });
  const { api, environment } = loadSettings({ HEALTH_EXPECT: "" }, file);
  assert.equal([api.expect, environment.HEALTH_EXPECT], [{}, "{}"], "Compose cannot tell empty from not set");
});

test("a wrong API_PORT, HEALTH_PATH, HEALTH_EXPECT or AUTH is rejected", () => {
  for (const HEALTH_EXPECT of ["healthy", "[1]", "null", "1", "{ok:true}", " "])
    assert.match(errorsOf({ HEALTH_EXPECT }), "it must be a JSON object", HEALTH_EXPECT);
  for (const HEALTH_PATH of ["up", "/a b", "/a?b", '/"', "/../x", "/a/..", "/a//b", "/_loop/color", "/_loop"])
    assert.match(errorsOf({ HEALTH_PATH }), "it must be a path such as /health", HEALTH_PATH);
  for (const API_PORT of ["0", "65536", "http"]) assert.match(errorsOf({ API_PORT }), "it must be a port");
  assert.match(errorsOf({ AUTH: "none" }), "it must be on or off");
  assert.match(errorsOf({ HEALTH_PATH: "/token" }), "nginx sends this path to auth");
  assert.is(loadSettings({ HEALTH_PATH: "/token", AUTH: "off" }, NO_FILE).api.healthPath, "/token");
});

test("VAULT_PATH=none means no vault: the state file is in STATE_DIR, and Compose mounts an empty tmpfs", () => {
  const { vaultPath, activeColorFile, stateDir, oldStateFile, environment } = loadSettings(
    { VAULT_PATH: "none" },
    NO_FILE,
  );
  assert.equal([vaultPath, oldStateFile], [undefined, undefined]);
  assert.is(activeColorFile, join(stateDir, ".active-color"));
  const { VAULT_PATH, LOOP_VAULT_MOUNT, LOOP_VAULT_SOURCE } = environment;
  assert.equal([VAULT_PATH, LOOP_VAULT_MOUNT, LOOP_VAULT_SOURCE], ["none", "tmpfs", ""]);
});

test("a container gets the OAuth data if its API has auth, whatever the settings say for the next release", async () => {
  const DOCKER_CMD = join(await tempFolder("settings"), "docker");
  await writeFile(DOCKER_CMD, '#!/bin/sh\necho "$AUTH $LOOP_OAUTH_MOUNT"\n', { mode: 0o755 });
  const seen = async (inSettings: "on" | "off", ofApi: "on" | "off") => {
    const settings = loadSettings({ DOCKER_CMD, AUTH: inSettings }, NO_FILE);
    const environment = apiSettings({ ...settings.api, auth: ofApi });
    return (await docker(readOnlyContext(settings, createLog()), ["version"], { environment })).stdout.trim();
  };
  assert.equal([await seen("on", "on"), await seen("off", "on")], ["on", "on"]);
  assert.equal([await seen("off", "off"), await seen("on", "off")], ["off tmpfs", "off tmpfs"]);
});

test("only the word none is special: ./none is a folder", () => {
  for (const VAULT_PATH of ["./none", "None"])
    assert.match(errorsOf({ VAULT_PATH }), "must be an existing folder", VAULT_PATH);
});

test("AUTH=off needs no sources of auth and no port, and its data folder still is one that containers can write to", async () => {
  const off = { AUTH: "off", LOOP_AUTH_CONTEXT: "/nonexistent", AUTH_PORT: "8080" };
  assert.match(errorsOf({ LOOP_AUTH_CONTEXT: "/nonexistent" }), "Without auth, set AUTH=off");
  const OAUTH_DATA_PATH = await tempFolder("settings");
  assert.match(errorsOf({ ...off, OAUTH_DATA_PATH, STATE_DIR: join(OAUTH_DATA_PATH, "x") }), /^STATE_DIR is/);
});
test("without ENGINE=swarm, REPLICAS and REGISTRY may mean something else", () => {
  const other = { REGISTRY: "https://registry.example/", REPLICAS: "many" };
  const { environment } = loadSettings(other, NO_FILE);
  assert.equal([environment.REGISTRY, environment.REPLICAS], [other.REGISTRY, other.REPLICAS]);
  assert.equal(
    Object.keys(loadSettings({}, NO_FILE).environment).filter((name) => name === "ENGINE" || name in other),
    [],
  );
  const errors = errorsOf({ ...other, ENGINE: "swarm" });
  assert.match(errors, /REPLICAS is "many"/);
  assert.match(errors, /REGISTRY is "https/);
});

test.run();
