import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Notice, notify } from "../../lib/run/notify.ts";
import { loadSettings } from "../../lib/settings.ts";

const NOTICE: Notice = {
  result: "done",
  exitCode: 0,
  verb: "deploy",
  project: "loop",
  from: "blue",
  to: "green",
  seconds: 42.5,
  message: "Released blue → green",
};

async function sendNotice(env: Record<string, string>, notice: Notice, status = 204) {
  const [bodies, warnings]: [string[], string[]] = [[], []];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    bodies.push(body);
    response.writeHead(status).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook?token=secret`;
  const settings = loadSettings({ NOTIFY_URL: url, ...env }, "/no/such/file");
  await notify(settings, notice, (message) => warnings.push(message));
  server.close();
  return { bodies, warnings };
}

test("each run is reported as one JSON document", async () => {
  const { bodies, warnings } = await sendNotice({}, NOTICE);
  assert.equal(
    bodies.map((body) => JSON.parse(body)),
    [NOTICE],
  );
  assert.equal(warnings, []);
});

test("with NOTIFY_ON=failure, only failed runs are reported", async () => {
  const failed = { ...NOTICE, result: "HealthError", exitCode: 1 };
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, NOTICE)).bodies.length, 0);
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, failed)).bodies.length, 1);
});

test("with NOTIFY_ON=failure, a run that interrupted requests is reported too", async () => {
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, { ...NOTICE, cut: 1 })).bodies.length, 1);
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, { ...NOTICE, cut: 0 })).bodies.length, 0);
});

test("an error response or a refused connection is a warning without the address", async () => {
  const failed = await sendNotice({}, NOTICE, 500);
  assert.equal(failed.warnings, ["NOTIFY_URL answered HTTP 500"]);
  const unreachable = await sendNotice({ NOTIFY_URL: "http://127.0.0.1:9/hook?token=secret" }, NOTICE);
  assert.equal(unreachable.warnings, ["NOTIFY_URL was not reached: ECONNREFUSED"]);
});

test("an invalid address is rejected and not printed", () => {
  try {
    loadSettings({ NOTIFY_URL: "secret-token" }, "/no/such/file");
    assert.unreachable();
  } catch (error) {
    assert.match((error as { details: string }).details, "NOTIFY_URL: it must be an http or https address");
    assert.not.match((error as { details: string }).details, "secret-token");
  }
});
test.run();
