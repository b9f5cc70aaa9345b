import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FIRST_API } from "../../lib/api.ts";
import type { Expectation } from "../../lib/util/expectation.ts";
import { type Answer, probeHealth } from "../../lib/util/http-probe.ts";

async function probe(
  listener: RequestListener,
  timeout = 2,
  expected: Expectation | undefined = FIRST_API.expect,
): Promise<Answer> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/health`;
    return await probeHealth(url, (color) => (color === "blue" ? undefined : expected), timeout);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
const respondWith =
  (body: unknown, status = 200): RequestListener =>
  (_, response) =>
    response
      .writeHead(status, { "x-loop-color": "green" })
      .end(typeof body === "string" ? body : JSON.stringify(body));

test("healthy means a 2xx status and JSON that contains what is expected; other fields are ignored", async () => {
  const answer = await probe(respondWith({ status: "healthy", vault_exists: true, version: "9" }));
  assert.is(answer.healthy, true);
  assert.is(answer.color, "green");
  assert.is((await probe(respondWith({ status: "healthy", vault_exists: true }, 201))).healthy, true);
});

const UNHEALTHY: [string, unknown, number?][] = [
  ["unhealthy", { status: "unhealthy", vault_exists: true }],
  ["healthy with a capital letter", { status: "Healthy", vault_exists: true }],
  ["vault_exists as a string", { status: "healthy", vault_exists: "true" }],
  ["no vault_exists", { status: "healthy" }],
  ["an HTML page that contains healthy", "<html>healthy</html>"],
  ["an empty body", ""],
  ["a list", [{ status: "healthy", vault_exists: true }]],
  ["503 with a healthy body", { status: "healthy", vault_exists: true }, 503],
  ["302 with a healthy body", { status: "healthy", vault_exists: true }, 302],
];
for (const [name, body, status] of UNHEALTHY) {
  test(`not healthy: ${name}`, async () => {
    const answer = await probe(respondWith(body, status));
    assert.is(answer.healthy, false);
    assert.match(answer.finding, `HTTP ${status ?? 200}`);
  });
}

test("a missing vault is reported as such", async () => {
  const answer = await probe(respondWith({ status: "unhealthy", vault_exists: false }, 503));
  assert.match(answer.finding, "vault not accessible");
});

test("the finding says what differs from the expectation", async () => {
  const starting = await probe(respondWith({ status: "starting", vault_exists: true }));
  assert.match(starting.finding, /^status is "starting", expected "healthy"; HTTP 200: /);
  const long = await probe(respondWith({ status: "x".repeat(1000) }));
  assert.ok(long.finding.length < 350, long.finding);
});

test("a vault that is not accessible is named only if the expectation asks for it", async () => {
  const body = { ok: false, vault_exists: false };
  assert.match((await probe(respondWith(body), 2, { ok: true })).finding, /^ok is false, expected true; /);
});

test("without an expectation, any 2xx status is healthy, JSON or not, and no other status is", async () => {
  for (const [body, status, healthy] of [
    ["fine", 200, true],
    ["", 204, true],
    [[], 200, true],
    ["fine", 302, false],
    ["fine", 404, false],
    ["fine", 503, false],
  ] as const)
    assert.is((await probe(respondWith(body, status), 2, {})).healthy, healthy, `${status} ${body}`);
});

test("a response of a color that should not have answered is not healthy, whatever it says", async () => {
  const listener: RequestListener = (_, response) =>
    response.writeHead(200, { "x-loop-color": "blue" }).end(JSON.stringify(FIRST_API.expect));
  assert.is((await probe(listener)).healthy, false);
});

test("a redirect is not followed", async () => {
  const answer = await probe((request, response) => {
    if (request.url === "/health") response.writeHead(302, { location: "/ok" }).end();
    else respondWith({ status: "healthy", vault_exists: true })(request, response);
  });
  assert.is(answer.healthy, false);
});

test("the probe stops an endless body at the size limit and a hanging response at the timeout", async () => {
  const since = performance.now();
  const endless = await probe((_, response) => {
    const more = (): void => {
      while (response.write("x".repeat(16_384)));
      response.once("drain", more);
    };
    more();
  }, 10);
  assert.is(endless.healthy, false);
  assert.ok(performance.now() - since < 5000, "it kept reading until the timeout");
  for (const hang of [
    (() => {}) as RequestListener,
    ((_, response) => void response.write("{")) as RequestListener,
  ]) {
    assert.match((await probe(hang, 0.3)).finding, "no complete response within 0.3 s");
  }
});

test("a refused connection is a finding, not an exception", async () => {
  const answer = await probeHealth("http://127.0.0.1:1/health", () => ({}), 1);
  assert.is(answer.healthy, false);
  assert.match(answer.finding, "ECONNREFUSED");
});
test.run();
