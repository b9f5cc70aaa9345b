import { createServer } from "node:net";
import * as assert from "uvu/assert";
import { createReleasedScratch, createScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";

const ports = suite<{ stack: Scratch }>("ports of nginx and auth");
ports.before(async (context) => {
  context.stack = await createScratch("port");
});
ports.after(({ stack }) => stack.remove());

const containers = async ({ docker, project }: Scratch): Promise<string> =>
  (await docker("ps", "-aq", "--filter", `label=com.docker.compose.project=${project}`)).stdout;

ports("a program on nginx's port is reported before anything is started", async ({ stack }) => {
  const server = createServer().listen(Number(stack.env.NGINX_PORT));
  const run = await stack.deploy();
  server.close();
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "Port conflict detected, check running containers");
  assert.match(run.stderr, `(pid ${process.pid})`);
  assert.match(run.stderr, "set NGINX_PORT to a free port");
  assert.is(await containers(stack), "");
});

ports("a container on auth's port is reported before nginx is started", async ({ stack }) => {
  const blocker = `${stack.project}-blocker`;
  const publish = `127.0.0.1:${stack.env.AUTH_PORT}:80`;
  await stack.docker("run", "-d", "--rm", "--name", blocker, "-p", publish, "nginx:1.30", "sleep", "60");
  const run = await stack.deploy();
  await stack.docker("rm", "--force", blocker);
  assert.is(run.exitCode, 1, run.stdall);
  assert.match(run.stderr, "Port conflict detected, check running containers");
  assert.match(run.stderr, `is held by the container ${blocker}`);
  assert.is(await containers(stack), "");
});

ports("an NGINX_BIND address that this machine does not have is rejected", async ({ stack }) => {
  const run = await stack.deploy([], { NGINX_BIND: "192.0.2.1" });
  assert.is(run.exitCode, 2, run.stdall);
  assert.match(run.stderr, "NGINX_BIND is 192.0.2.1, which is not an address of this machine");
  assert.is(await containers(stack), "");
});

ports.run();

const bind = suite<{ stack: Scratch }>("NGINX_BIND");
bind.before(async (context) => {
  context.stack = await createReleasedScratch("bind");
});
bind.after(({ stack }) => stack.remove());

bind("a run warns if nginx was created for all addresses, and goes on", async ({ stack }) => {
  const narrow = await stack.rollback([], { NGINX_BIND: "127.0.0.1" });
  assert.is(narrow.exitCode, 0, narrow.stdall);
  assert.match(narrow.stderr, "still listens on all addresses");
});

bind(
  "a new nginx container listens on NGINX_BIND only, runs use that address, and changing it requires another new container",
  async ({ stack }) => {
    await stack.docker("rm", "--force", stack.nginxContainer);
    const first = await stack.rollback([], { NGINX_BIND: "127.0.0.2" });
    assert.is(first.exitCode, 0, first.stdall);
    const published = await stack.docker("port", stack.nginxContainer);
    assert.is(published.stdout.trim(), `8080/tcp -> 127.0.0.2:${stack.env.NGINX_PORT}`);
    const second = await stack.deploy([], { NGINX_BIND: "127.0.0.3" });
    assert.is(second.exitCode, 2, second.stdall);
    assert.match(second.stderr, /NGINX_BIND is 127\.0\.0\.3, but \S+ was created with 127\.0\.0\.2/);
    assert.equal(await stack.running(), ["blue"]);
    assert.is((await stack.status([], { NGINX_BIND: "127.0.0.2" })).exitCode, 0);
  },
);
bind.run();
