import { test } from "uvu";
import * as assert from "uvu/assert";
import { sendNotice } from "../../bench/testbed/notices.ts";
import type { UsageError } from "../../lib/errors.ts";
import type { Notice } from "../../lib/run/notice.ts";
import { loadSettings } from "../../lib/settings.ts";

const NOTICE: Notice = {
  result: "done",
  exitCode: 0,
  verb: "deploy",
  project: "loop",
  from: "blue",
  to: "green",
  seconds: 42.5,
  traffic: {
    after: { responses: 412, errors: 0, p95: 0.012 },
    before: { responses: 388, errors: 1, p95: null },
  },
  message: "Released blue → green",
};

test("each run is reported as one JSON document", async () => {
  const { received, warnings } = await sendNotice({}, NOTICE);
  assert.equal(
    received.map(({ body }) => JSON.parse(body)),
    [NOTICE],
  );
  assert.is(received[0]?.headers["content-type"], "application/json");
  assert.equal(warnings, []);
});

test("with NOTIFY_ON=failure, only failed runs are reported", async () => {
  const failed = { ...NOTICE, result: "HealthError", exitCode: 1 };
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, NOTICE)).received.length, 0);
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, failed)).received.length, 1);
});

test("with NOTIFY_ON=failure, a run that interrupted requests is reported too", async () => {
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, { ...NOTICE, cut: 1 })).received.length, 1);
  assert.is((await sendNotice({ NOTIFY_ON: "failure" }, { ...NOTICE, cut: 0 })).received.length, 0);
});

test("an error response or a refused connection is a warning without the address", async () => {
  const failed = await sendNotice({}, NOTICE, (response) => response.writeHead(500).end());
  assert.equal(failed.warnings, ["NOTIFY_URL answered HTTP 500"]);
  const unreachable = await sendNotice({ NOTIFY_URL: "http://127.0.0.1:9/hook?token=secret" }, NOTICE);
  assert.equal(unreachable.warnings, ["NOTIFY_URL was not reached: ECONNREFUSED"]);
});

test("an answer that refuses the notification with status 200 is a warning without the address", async () => {
  const warningsFor = async (NOTIFY_FORMAT: string, answer: string, status = 200) =>
    (await sendNotice({ NOTIFY_FORMAT }, NOTICE, (response) => response.writeHead(status).end(answer)))
      .warnings;
  const refused = ["NOTIFY_URL answered HTTP 200, but did not accept the notification"];
  const [telegram, synology] = ["telegram", "synology-chat"];
  assert.equal(await warningsFor(telegram, '{"ok":true,"result":{"message_id":7}}'), []);
  assert.equal(
    await warningsFor(telegram, '{"ok":false,"error_code":404,"description":"of bot-secret"}'),
    refused,
  );
  assert.equal(await warningsFor(telegram, '{"ok":false,"error_code":400}', 400), [
    "NOTIFY_URL answered HTTP 400",
  ]);
  assert.equal(await warningsFor(synology, '{"success":true}'), []);
  assert.equal(
    await warningsFor(synology, '{"error":{"code":411,"errors":"too fast"},"success":false}'),
    refused,
  );
  for (const answer of ["", "null", "<html>Sign in to bot-secret</html>", '{"success":"true"}'])
    assert.equal(await warningsFor(synology, answer), refused, answer);
  assert.equal(await warningsFor("slack", "ok"), []);
  assert.equal(await warningsFor("json", '{"ok":false,"success":false}'), [], "a server of the owner");
});

test("an endless answer is read only in part", async () => {
  const { warnings } = await sendNotice({ NOTIFY_FORMAT: "telegram" }, NOTICE, (response) => {
    response.writeHead(200);
    const more = (): void => void response.write("x".repeat(16 * 1024));
    response.on("drain", more);
    more();
  });
  assert.equal(warnings, ["NOTIFY_URL answered HTTP 200, but did not accept the notification"]);
});

const problemsOf = (environment: Record<string, string>): string => {
  try {
    loadSettings(environment, "/no/such/file");
  } catch (error) {
    return (error as UsageError).details;
  }
  return assert.unreachable() as never;
};

test("an invalid address is rejected and not printed", () => {
  const problems = problemsOf({ NOTIFY_URL: "secret-token" });
  assert.match(problems, "NOTIFY_URL: it must be an http or https address");
  assert.not.match(problems, "secret-token");
});

test("an unknown format is rejected; a format without an address is harmless", () => {
  assert.is(
    problemsOf({ NOTIFY_FORMAT: "pager" }),
    'NOTIFY_FORMAT is "pager": it must be one of json, slack, discord, ntfy, telegram, synology-chat',
  );
  const { notifyUrl, notifyFormat } = loadSettings({ NOTIFY_FORMAT: "ntfy" }, "/no/such/file");
  assert.equal([notifyUrl, notifyFormat], [undefined, "ntfy"]);
});
test.run();
