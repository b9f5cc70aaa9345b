import { spawnSync } from "node:child_process";
import { appendFile, chmod, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { request as open } from "node:http";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import { $, type ProcessOutput } from "zx";
import { release } from "../../bench/testbed/released.ts";
import {
  createScratch,
  EXAMPLE_API,
  EXAMPLE_AUTH,
  type Scratch,
  waitFor,
} from "../../bench/testbed/scratch.ts";
import { COLORS } from "../../lib/color.ts";
import { keyHeaders } from "../../lib/nginx/key.ts";
import { suite } from "../suite.ts";

/** Added to the example API: returns the headers it received, and tries to control nginx with response headers. */
const ROGUE_API = `
SENT = {}


@app.middleware("http")
async def remember(request: Request, call_next):
    SENT[request.url.path] = dict(request.headers)
    return await call_next(request)


@app.get("/sent")
def sent(path: str = "/sent") -> dict:
    return SENT.get(path, {})


@app.get("/steer")
def steer() -> Response:
    steering = {"X-Loop-Color": "green", "X-Accel-Redirect": "/.well-known/oauth-authorization-server"}
    return JSONResponse({"by": "the API"}, headers=steering)


@app.post("/swallow")
async def swallow(request: Request) -> dict:
    return {"bytes": sum([len(chunk) async for chunk in request.stream()])}
`;

/** A DNS server that resolves every name to its own address, and answers HTTP requests with a fake health response. */
const FAKE_DNS_SERVER = `
import http.server, socket, sys, threading
me = socket.gethostbyname(socket.gethostname())
class FakeHealth(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"status": "healthy", "vault_exists": true, "stolen": true}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
threading.Thread(target=http.server.HTTPServer(("", 8081), FakeHealth).serve_forever, daemon=True).start()
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("", 53))
while True:
    query, asker = dns.recvfrom(512)
    end = query.index(0, 12) + 5
    print("asked for", query[12:end - 5], flush=True)
    answer = b"\\xc0\\x0c\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x01\\x00\\x04" + socket.inet_aton(me)
    dns.sendto(query[:2] + b"\\x81\\x80\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x00" + query[12:end] + answer, asker)
`;

interface Target {
  stack: Scratch;
  url: string;
  /** The API's sources, a git checkout. */
  sources: string;
  /** The folder in which commands that git was made to run leave files. */
  traces: string;
  /** A PATH with a git command that records its calls. */
  gitPath: string;
}

const attempts = suite<Target>("attempts");
attempts.before(async (context) => {
  const stack = await createScratch("sec");
  const { LOOP_API_CONTEXT: sources = "" } = await stack.apiVersion("2.0.0", EXAMPLE_API);
  await appendFile(join(sources, "api/main.py"), ROGUE_API);
  const traces = join(stack.folder, "traces");
  await mkdir(traces);
  Object.assign(context, { stack, sources, traces, url: `http://127.0.0.1:${stack.env.NGINX_PORT}` });
  const contexts = { LOOP_API_CONTEXT: sources, LOOP_AUTH_CONTEXT: EXAMPLE_AUTH };
  Object.assign(stack.env, { ...contexts, BODY_MAX: "32m", API_TMP: "32m" });
  await release(stack);
  await plantTraps(context);
  context.gitPath = `${await createRecordingGit(context)}:${stack.env.PATH}`;
  // Other users of this machine may enter the checkout.
  await chmod(dirname(stack.folder), 0o755);
});
attempts.after(async ({ stack }) => {
  await stack.docker("rm", "--force", dnsServerOf(stack));
  await stack.remove();
});

/** Runs Python as a remote client: in a container on another network, whose gateway is this host. Returns its output. */
async function runAsRemoteClient({ docker, project }: Scratch, script: string): Promise<string> {
  const gateway = 'socket.inet_ntoa(bytes.fromhex(open("/proc/net/route").readlines()[1].split()[2])[::-1])';
  const head = `import socket, urllib.request as u\nHOST = ${gateway}\n`;
  const run = await docker("run", "--rm", `${project}-auth`, "python3", "-c", head + script);
  assert.is(run.exitCode, 0, run.stdall);
  return run.stdout.trim();
}

const execInside = ({ docker, project }: Scratch, part: string, line: string): Promise<ProcessOutput> =>
  docker("exec", `${project}-${part}`, "sh", "-c", line);

/** Asserts that a shell command fails in a container for this reason. */
async function assertDenied(stack: Scratch, part: string, line: string, reason: RegExp): Promise<void> {
  const run = await execInside(stack, part, line);
  assert.is.not(run.exitCode, 0, `${part}: ${line}`);
  assert.match(run.stdall, reason, `${part}: ${line}\n${run.stdall}`);
}

const statusOf = async (url: string, headers: Record<string, string> = {}): Promise<number> => {
  const { statusCode, body } = await request(url, { headers });
  await body.dump();
  return statusCode;
};

const LOOP_PATHS = ["/_loop/color", "/_loop/blue/health", "/_loop/green/health", "/_loop/", "/_loop/else"];

attempts(
  "LAN client: without the probe key, /_loop/ returns 404 to remote and local clients",
  async (target) => {
    const { stack, url } = target;
    for (const path of LOOP_PATHS) {
      assert.is(await statusOf(url + path), 404, path);
      assert.is(await statusOf(url + path, { "x-loop-key": "0".repeat(32) }), 404, path);
    }
    const output = await runAsRemoteClient(
      stack,
      `for path in ${JSON.stringify(LOOP_PATHS)}:
    try: print(u.urlopen(f"http://{HOST}:${stack.env.NGINX_PORT}{path}").status)
    except u.HTTPError as error: print(error.code)`,
    );
    assert.is(output, LOOP_PATHS.map(() => "404").join("\n"));
    assert.is((await stack.get("/_loop/color")).status, 204, "with the probe key");
    assert.is((await stack.get("/_loop/blue/health")).status, 200, "with the probe key");
  },
);

attempts(
  "LAN client: its forwarding headers do not reach the API, and neither does the probe key",
  async (target) => {
    const { stack, url } = target;
    const claims = {
      "x-forwarded-for": "203.0.113.7",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "evil.example",
      "x-real-ip": "203.0.113.7",
      forwarded: "for=203.0.113.7;proto=https",
      "x-loop-key": "guessed",
    };
    const { body } = await request(`${url}/sent`, { headers: claims });
    const sent = (await body.json()) as Record<string, string>;
    assert.not.match(JSON.stringify(sent), /203\.0\.113\.7|evil\.example|https|guessed/);
    assert.match(sent["x-forwarded-for"] ?? "", /^[\d.]+$/);
    assert.equal([sent["x-real-ip"], sent["x-forwarded-proto"]], [sent["x-forwarded-for"], "http"]);

    await stack.get("/_loop/blue/health");
    const received = await request(`${url}/sent?path=/health`);
    assert.is(((await received.body.json()) as Record<string, string>)["x-loop-key"], undefined);
    const [key = "none"] = Object.values(await keyHeaders({ nginxFolder: join(stack.folder, "nginx") }));
    const logged = async () => (await stack.docker("logs", stack.nginxContainer)).stdall;
    await waitFor("the request is in the log", async () => (await logged()).includes("/_loop/blue/health"));
    assert.not.match(await logged(), key);
  },
);

attempts(
  "LAN client: bodies that are too large are rejected, and others are not buffered in memory",
  async ({ stack, url }) => {
    const tooLarge = await request(`${url}/swallow`, {
      method: "POST",
      body: Buffer.alloc(33 * 2 ** 20),
    }).catch(
      (error) => error, // nginx responds and closes while the body is still being sent
    );
    if (!(tooLarge instanceof Error)) assert.is(tooLarge.statusCode, 413);

    const uploads = [1, 2, 3].map(() => {
      const upload = open(`${url}/swallow`, { method: "POST", headers: { "content-length": 8 * 2 ** 20 } });
      upload.on("error", () => undefined);
      upload.write(Buffer.alloc(4 * 2 ** 20));
      return upload;
    });
    await sleep(1500);
    // Not du, because nginx unlinks a buffer file as soon as it is open.
    const { stdout } = await execInside(stack, "nginx", "df -k /tmp /run /var/cache/nginx /var/lib/nginx");
    const held = stdout
      .split("\n")
      .slice(1)
      .reduce((total, line) => total + Number(line.split(/\s+/)[2] ?? 0), 0);
    for (const upload of uploads) upload.destroy();
    assert.ok(held < 1024, `nginx holds ${held} KiB`);
  },
);

attempts("LAN client: it can only connect to nginx", async ({ stack }) => {
  const { BLUE_PORT, GREEN_PORT, AUTH_PORT, NGINX_PORT } = stack.env;
  const output = await runAsRemoteClient(
    stack,
    `for port in [${NGINX_PORT}, ${BLUE_PORT}, ${GREEN_PORT}, ${AUTH_PORT}]:
    print(socket.socket().connect_ex((HOST, port)))`,
  );
  assert.equal(
    output.split("\n").map((code) => code === "0"),
    [true, false, false, false],
  );
});

attempts(
  "LAN client: it cannot overwrite a registration, write elsewhere, or have a code sent to another site",
  async ({ stack, url }) => {
    const register = async (client: unknown) => {
      const { statusCode, body } = await request(`${url}/register`, {
        method: "POST",
        body: JSON.stringify(client),
      });
      return { statusCode, client: (await body.json()) as { client_id?: string } };
    };
    const mine = { redirect_uris: ["https://client.example/back"] };
    const { client_id = "" } = (await register(mine)).client;
    for (const chosen of [client_id, "../outside", "/oauth-data/x", "a/../../tmp/x"]) {
      const second = await register({ redirect_uris: ["https://evil.example/"], client_id: chosen });
      assert.is(second.statusCode, 201);
      assert.match(second.client.client_id ?? "", /^[0-9a-f]{16}$/);
      assert.is.not(second.client.client_id, client_id);
    }
    const folder = stack.env.OAUTH_DATA_PATH ?? "";
    assert.match(
      await readFile(join(folder, `client-${client_id}.json`), "utf8"),
      "https://client.example/back",
    );
    for (const file of await readdir(folder)) assert.match(file, /^client-[0-9a-f]{16}\.json$/);

    for (const uri of ["http://evil.example/", "javascript:alert(1)", "https://a\\@b/", "https://a/#b", 7])
      assert.is((await register({ redirect_uris: [uri] })).statusCode, 400, String(uri));
    assert.is((await register({ redirect_uris: [`https://a/${"x".repeat(20_000)}`] })).statusCode, 413);
    const authorize = (id: string, uri: string) =>
      statusOf(`${url}/authorize?${new URLSearchParams({ client_id: id, redirect_uri: uri })}`);
    assert.is(await authorize(client_id, "https://client.example/back"), 302);
    assert.is(await authorize(client_id, "https://evil.example/"), 400);
    assert.is(await authorize("../../etc/passwd", "https://evil.example/"), 400);
  },
);

attempts(
  "API: it cannot change its own files, has no key and no privileges, and its resources are limited",
  async ({ stack }) => {
    await assertDenied(stack, "api-blue", "echo x >>/srv/api/main.py", /Read-only file system/);
    await assertDenied(stack, "api-blue", "echo x >/oauth-data/x", /Read-only file system/);
    await assertDenied(stack, "api-blue", "chown 1 /vault", /Operation not permitted/);
    await assertDenied(stack, "api-blue", "mount -t tmpfs none /mnt", /permission denied|not permitted/i);
    await assertDenied(stack, "api-blue", "ls /var/run/docker.sock /etc/nginx", /No such file/);
    await assertDenied(
      stack,
      "api-blue",
      "head -c 40m /dev/zero >/tmp/x; s=$?; rm /tmp/x; exit $s",
      /No space left/,
    );
    const raw = "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'";
    await assertDenied(stack, "api-blue", raw, /Operation not permitted/);
    const forks = "import os, time\nfor i in range(2000):\n  if os.fork() == 0: time.sleep(3); os._exit(0)";
    const started = await execInside(stack, "api-blue", `python3 -c '${forks}'`);
    assert.match(started.stderr, /BlockingIOError|Resource temporarily unavailable/);
    const respondsWith200 = async () => (await stack.get()).status === 200;
    await waitFor("blue responds", respondsWith200, 30);
    // Processes that nothing has reaped yet still count, and then the next docker exec does not start.
    await stack.docker("restart", "--time", "1", `${stack.project}-api-blue`);
    await waitFor("blue responds after the restart", respondsWith200, 30);
    const limits = await stack.field(
      `${stack.project}-api-blue`,
      "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}",
    );
    assert.is(limits, `${2 ** 30} 512`);
  },
);

attempts(
  "API: it cannot claim a color, control nginx with headers, or use /_loop/",
  async ({ stack, url }) => {
    const { headers, body } = await request(`${url}/steer`);
    assert.equal(await body.json(), { by: "the API" });
    assert.is(headers["x-loop-color"], "blue");
    const script = "import urllib.request as u; u.urlopen('http://loop-nginx:8080/_loop/color')";
    await assertDenied(stack, "api-blue", `python3 -c "${script}"`, /HTTP Error 404/);
  },
);

attempts(
  "auth: it has no vault, cannot change its own files, and its resources are limited",
  async ({ stack }) => {
    await assertDenied(stack, "auth", "ls /vault /etc/nginx /var/run/docker.sock", /No such file/);
    await assertDenied(stack, "auth", "echo x >>/srv/auth/main.py", /Read-only file system/);
    await assertDenied(
      stack,
      "auth",
      "head -c 20m /dev/zero >/tmp/x; s=$?; rm /tmp/x; exit $s",
      /No space left/,
    );
    await assertDenied(stack, "auth", "mount -t tmpfs none /mnt", /permission denied|not permitted/i);
    const script = "import urllib.request as u; u.urlopen('http://loop-nginx:8080/_loop/blue/health')";
    await assertDenied(stack, "auth", `python3 -c "${script}"`, /HTTP Error 404/);
    const limits = await stack.field(
      `${stack.project}-auth`,
      "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}",
    );
    assert.is(limits, `${2 ** 28} 128`);
  },
);

attempts(
  "nginx: it cannot change its configuration, has neither vault nor logins, and its resources are limited",
  async ({ stack }) => {
    await assertDenied(stack, "nginx", "echo x >>/etc/nginx/nginx-blue-green.conf", /Read-only file system/);
    await assertDenied(stack, "nginx", "ln -s x /etc/nginx/y", /Read-only file system/);
    await assertDenied(stack, "nginx", "ls /vault /oauth-data /var/run/docker.sock", /No such file/);
    for (const folder of ["/tmp", "/run", "/var/cache/nginx", "/var/lib/nginx"]) {
      const fill = `head -c 20m /dev/zero >${folder}/x; s=$?; rm ${folder}/x; exit $s`;
      await assertDenied(stack, "nginx", fill, /No space left/);
    }
    const limits = await stack.field(
      stack.nginxContainer,
      "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}",
    );
    assert.is(limits, `${2 ** 29} 256`);
  },
);

attempts(
  "local user without Docker: they cannot read the key or logins, or use the engine",
  async ({ stack, url }) => {
    if (process.getuid?.() !== 0) return; // only root can run commands as another user
    const runAsOtherUser = (line: string) =>
      spawnSync("sh", ["-c", line], {
        uid: 54_321,
        gid: 54_321,
        encoding: "utf8",
        env: { PATH: process.env.PATH },
      });
    const nginx = join(stack.folder, "nginx");
    assert.is(runAsOtherUser(`cat ${nginx}/nginx-blue-green.conf`).status, 0, "it can read the checkout");
    for (const line of [
      `cat ${nginx}/probe-key.conf`,
      `ln -sfn blue-upstream.conf ${nginx}/active-upstream.conf`,
      `ls ${stack.env.OAUTH_DATA_PATH}`,
      `echo x >>${join(stack.folder, "docker-compose.blue-green.yml")}`,
    ]) {
      const { status, stderr } = runAsOtherUser(line);
      assert.is.not(status, 0, line);
      assert.match(stderr, /Permission denied/, line);
    }
    assert.is.not(runAsOtherUser("docker ps").status, 0);
    assert.is(await statusOf(`${url}/_loop/color`), 404);
  },
);

// Attacks on the state folder are in state-dir.test.ts and migrate.test.ts.

/** Configures everything that could make git run a command in the sources; each command leaves a file in `traces`. */
async function plantTraps({ sources, traces }: Target): Promise<void> {
  const git = $({ quiet: true, cwd: sources });
  await git`git init -q && git add . && git -c user.name=t -c user.email=t@localhost commit -qm one`;
  await appendFile(join(sources, ".gitattributes"), "* filter=evil\n");
  await writeFile(join(sources, "Dockerfile"), await readFile(join(sources, "Dockerfile"), "utf8"));
  await appendFile(
    join(sources, ".git/config"),
    `	fsmonitor = "touch ${traces}/fsmonitor"
	sshCommand = "touch ${traces}/ssh"
	pager = "touch ${traces}/pager"
[filter "evil"]
	clean = "touch ${traces}/clean; cat"
`,
  );
}

/** Creates a git command that logs its GIT_DIR and arguments. Returns its folder. */
async function createRecordingGit({ stack }: Target): Promise<string> {
  const folder = join(stack.folder, "bin");
  await mkdir(folder);
  const real = (await $({ quiet: true })`command -v git`).stdout.trim();
  const record = `echo "GIT_DIR=\${GIT_DIR:-of the folder} $*" >>${stack.folder}/git.log`;
  await writeFile(join(folder, "git"), `#!/bin/sh\n${record}\nexec ${real} "$@"\n`, { mode: 0o755 });
  return folder;
}

// The tests above only ask blue; those below release and roll back.

/** Asks the API which headers it received of a client that claims to be another one. */
const sentBy = async ({ url }: Target): Promise<Record<string, string>> => {
  const claims = { "x-forwarded-for": "198.51.100.9, 203.0.113.7", "x-forwarded-proto": "https" };
  return (await (await request(`${url}/sent`, { headers: claims })).body.json()) as Record<string, string>;
};

attempts(
  "a trusted proxy: only proxies in TRUSTED_PROXIES are trusted to name the client, from the next switch on",
  async (target) => {
    const { stack, gitPath } = target;
    const sent = () => sentBy(target);
    const gateway = (await sent())["x-forwarded-for"] ?? "";
    assert.match(gateway, /^[\d.]+$/);
    const run = await stack.deploy([], { TRUSTED_PROXIES: `192.0.2.0/24, ${gateway}`, PATH: gitPath });
    assert.is(run.exitCode, 0, run.stdall);
    await waitFor("no old worker responds", async () => (await sent())["x-forwarded-proto"] === "https");
    assert.equal(
      (await sent())["x-forwarded-for"],
      "203.0.113.7",
      "only the last address comes from the proxy",
    );
    assert.equal((await sent())["x-real-ip"], "203.0.113.7");
  },
);

attempts(
  "author of the sources: the release ran nothing that their checkout configures, not even through Compose",
  async (target) => {
    const { stack, traces } = target;
    assert.equal(await readdir(traces), []);
    const calls = (await readFile(join(stack.folder, "git.log"), "utf8")).trim().split("\n");
    assert.ok(calls.some((call) => call.includes("status")));
    for (const call of calls) assert.match(call, /^GIT_DIR=\/\S*loop-revision-/);
    const label = '{{index .Config.Labels "org.opencontainers.image.revision"}}';
    assert.match(await stack.field(`${stack.project}-api-green`, label), /^[0-9a-f]{40}-dirty$/);
  },
);

attempts(
  "a rollback recreates a missing key, loads it without switching to a wrong link, and no longer trusts the proxy",
  async (target) => {
    const { stack } = target;
    const { color } = await stack.get();
    const other = COLORS.find((candidate) => candidate !== color) ?? "blue";
    const nginx = join(stack.folder, "nginx");
    await $({
      quiet: true,
    })`rm ${nginx}/probe-key.conf && ln -sfn ${other}-upstream.conf ${nginx}/active-upstream.conf`;
    const failures: string[] = [];
    let polling = true;
    const watch = (async () => {
      while (polling) {
        const response = await stack.get();
        if (response.status !== 200) failures.push(`${response.color} ${response.status}`);
        await sleep(50);
      }
    })();
    const run = await stack.rollback([], { BODY_MAX: "" }).finally(() => {
      polling = false;
    });
    await watch;
    assert.is(run.exitCode, 0, run.stdall);
    assert.match(run.stdout, "✓ load the probe key into nginx");
    assert.equal(failures, []);
    assert.is((await stack.get("/_loop/color")).status, 204);
    await waitFor(
      "the proxy is no longer trusted",
      async () => (await sentBy(target))["x-forwarded-proto"] === "http",
    );
    assert.is(
      await readFile(join(nginx, "access.conf"), "utf8"),
      await readFile(new URL("../../nginx/access.conf", import.meta.url), "utf8"),
      "the committed file must have the defaults",
    );
  },
);

attempts("settings that nginx rejects are restored, so that it can be restarted", async ({ stack }) => {
  const nginx = join(stack.folder, "nginx");
  const own = join(nginx, "nginx-blue-green.conf");
  const [good, access] = await Promise.all(
    [own, join(nginx, "access.conf")].map((file) => readFile(file, "utf8")),
  );
  await writeFile(own, `${good}\nthis is no nginx;\n`);
  const run = await stack.rollback([], { BODY_MAX: "1m" });
  await writeFile(own, good ?? "");
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "nginx rejects its configuration");
  assert.is(await readFile(join(nginx, "access.conf"), "utf8"), access);
});
const dnsServerOf = ({ project }: Scratch): string => `${project}-dns`;

attempts(
  "a DNS server that resolves every name is never asked for a color, and gets no request for a crashed one",
  async ({ stack }) => {
    const dnsServer = dnsServerOf(stack);
    await stack.docker(
      ...["run", "-d", "--name", dnsServer, "--network", `${stack.project}_default`],
      ...[`${stack.project}-auth`, "python3", "-c", FAKE_DNS_SERVER],
    );
    const address = await stack.field(dnsServer, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    const overlay = join(stack.folder, "dns.yml");
    await writeFile(overlay, `services:\n  loop-nginx:\n    dns: ["${address}"]\n`);
    const recreate = ["up", "-d", "--no-deps", "--force-recreate", "--timeout", "0", "loop-nginx"];
    const up = await stack.compose("-f", overlay, ...recreate);
    assert.is(up.exitCode, 0, up.stdall);
    await waitFor("nginx serves", async () => (await stack.get()).status === 200);
    const { color } = await stack.get();
    const outside = await stack.docker("exec", stack.nginxContainer, "getent", "hosts", "outside.example");
    assert.is(outside.exitCode, 0, "nginx's container must use this server");
    await stack.docker("kill", `${stack.project}-api-${color}`);
    const since = performance.now();
    let last = 0;
    while (performance.now() - since < 12_000) {
      const { status, body } = await stack.get();
      assert.not.match(body, "stolen");
      last = status;
      await sleep(100);
    }
    assert.is(last, 502);
    const { stdout } = await stack.docker("logs", dnsServer);
    assert.match(stdout, "outside");
    assert.not.match(stdout, /loop-(api|auth)|GET/);
  },
);
attempts.run();
