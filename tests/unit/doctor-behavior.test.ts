import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { checkIdle, checkSessions, idleVerdict } from "../../lib/doctor/behavior.ts";
import type { Trial } from "../../lib/doctor/trial.ts";
import { readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";
import { answersOf, serve, serveSessions, serveStateless, tool } from "../mcp-servers.ts";

const contextWith = (env: Record<string, string> = {}) =>
  readOnlyContext(loadSettings(env, "/nonexistent", "nothing"), createLog());

const trialAt = (port: number): Trial => ({ port, ending: async () => undefined });
const portOf = ({ url }: { url: string }): Trial => trialAt(Number(new URL(url).port));

test("a server with sessions is recognized, and its session is ended", async () => {
  const server = await serveSessions([tool("echo")]);
  const { level, finding } = await checkSessions(contextWith({ SESSION_SECONDS: "60" }), portOf(server));
  assert.is(level, "ok");
  assert.match(finding, /^sessions 1\.2\.3, .* keeps sessions: .* SESSION_SECONDS=60$/);
  assert.is(server.sessions.size, 0);
  server.close();
});

test("a server without sessions is recognized", async () => {
  const server = await serveStateless(answersOf([]));
  const { level, finding } = await checkSessions(contextWith(), portOf(server));
  server.close();
  assert.equal([level, finding], ["ok", "stateless 3.2.1, revision 2026-07-28, no sessions"]);
});

test("an API that is no MCP server, and one that asks for a token, are no problem", async () => {
  const plain = await serve((_, response) => response.writeHead(404).end());
  assert.equal(await checkSessions(contextWith(), portOf(plain)), {
    level: "ok",
    finding: "no MCP server at /mcp",
  });
  plain.close();
  const guarded = await serve((_, response) =>
    response.writeHead(401, { "www-authenticate": 'Bearer realm="x"' }).end(),
  );
  assert.match((await checkSessions(contextWith(), portOf(guarded))).finding, "requires authorization");
  guarded.close();
});

test("an idle timeout below what nginx needs is a problem, one below the setting a warning; both suggest a value", () => {
  const early = idleVerdict(0.57, 1.5, 2);
  assert.is(early.level, "problem");
  assert.match(early.finding, "after 0.57 s; API_IDLE_SECONDS=2");
  assert.match(early.next ?? "", "Set API_IDLE_SECONDS=0.5,");
  assert.is(idleVerdict(1.7, 1.5, 2).level, "warning");
  assert.match(idleVerdict(0.02, 1.5, 2).next ?? "", "API_IDLE_SECONDS=0,");
});

test("an API that keeps its connections as long as the setting says is fine", async () => {
  const server = createServer((_, response) => response.end("{}")).listen(0, "127.0.0.1");
  await once(server, "listening");
  const trial = trialAt((server.address() as AddressInfo).port);
  server.keepAliveTimeout = 10_000;
  assert.is((await checkIdle(contextWith({ API_IDLE_SECONDS: "0.4" }), trial)).level, "ok");
  server.keepAliveTimeout = 1;
  server.closeAllConnections();
  const impatient = createServer((request, response) => {
    response.end("{}");
    response.on("finish", () => request.socket.end());
  }).listen(0, "127.0.0.1");
  await once(impatient, "listening");
  const early = await checkIdle(
    contextWith({ API_IDLE_SECONDS: "0.4" }),
    trialAt((impatient.address() as AddressInfo).port),
  );
  assert.is(early.level, "problem");
  assert.is(
    (
      await checkIdle(
        contextWith({ API_IDLE_SECONDS: "0" }),
        trialAt((impatient.address() as AddressInfo).port),
      )
    ).level,
    "ok",
  );
  for (const each of [server, impatient]) {
    each.closeAllConnections();
    each.close();
  }
});
test.run();
