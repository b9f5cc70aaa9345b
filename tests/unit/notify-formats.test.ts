import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Received, sendNotice } from "../../bench/testbed/notices.ts";
import { inWords, type Notice } from "../../lib/run/notice.ts";
import { NOTIFY_FORMAT_NAMES, type NotifyFormat } from "../../lib/util/notify-formats.ts";

const FAILED: Notice = {
  result: "VerdictError",
  exitCode: 1,
  verb: "deploy",
  project: "loop",
  from: "blue",
  to: "green",
  seconds: 42.1,
  cut: 2,
  message: "green fails its clients",
};

const jsonOf = ({ headers, body }: Received) => {
  assert.is(headers["content-type"], "application/json");
  return JSON.parse(body);
};

/** Characters as JavaScript and most services count them. */
function assertFits(text: string, most: number): void {
  assert.ok(text.length <= most, `${text.length} characters of ${most}`);
}

/** Each service as its documentation describes it: rejects what it would reject, and returns what people see. */
const SERVICES: Record<Exclude<NotifyFormat, "json">, (received: Received) => string> = {
  slack: (received) => {
    const { text, mrkdwn, unfurl_links, unfurl_media } = jsonOf(received);
    assertFits(text, 4000);
    assert.equal([mrkdwn, unfurl_links, unfurl_media], [false, false, false]);
    assert.not.match(text, /[<>]/, "a mention or a link");
    assert.not.match(text, /&(?!amp;|lt;|gt;)/, "an & that is not escaped");
    return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  },
  discord: (received) => {
    const { content, allowed_mentions, flags } = jsonOf(received);
    assertFits(content, 2000);
    assert.equal(allowed_mentions, { parse: [] }, "it would ping");
    assert.is(flags, 4, "it would show a preview");
    assert.not.match(content.replace(/\\[^0-9A-Za-z\s]/g, ""), /[\\*_~`|<[]/, "it would be Markdown");
    return content.replace(/\\([^0-9A-Za-z\s])/g, "$1");
  },
  ntfy: ({ headers, body }) => {
    assert.is(headers["content-type"], "text/plain; charset=utf-8");
    assert.ok(Buffer.byteLength(body) <= 4096, "it would become an attachment");
    const title = decodeHeader(String(headers.title));
    assert.ok(Buffer.byteLength(title) <= 1024, "ntfy answers HTTP 400");
    return `${title}\n${body}`;
  },
  telegram: (received) => {
    const { text, parse_mode, link_preview_options } = jsonOf(received);
    assert.is(received.query.get("chat_id"), "-42");
    assertFits(text, 4096);
    assert.equal([parse_mode, link_preview_options], [undefined, { is_disabled: true }]);
    return text;
  },
  "synology-chat": ({ headers, body }) => {
    assert.is(headers["content-type"], "application/x-www-form-urlencoded");
    const form = new URLSearchParams(body);
    assert.equal([...form.keys()], ["payload"]);
    const { text } = JSON.parse(String(form.get("payload")));
    assert.not.match(text, /[<>]/, "a link");
    return text.replaceAll("‹", "<").replaceAll("›", ">");
  },
};
const NAMES = Object.keys(SERVICES) as (keyof typeof SERVICES)[];

/** RFC 2047: spaces between encoded words do not count, and a word holds whole characters. */
function decodeHeader(value: string): string {
  assert.match(value, /^[\x20-\x7e]*$/);
  return value.replace(/\?=\s+=\?/g, "?==?").replace(/=\?UTF-8\?B\?([^?]*)\?=/g, (word, encoded) => {
    assert.ok(word.length <= 75, `${word.length} characters`);
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(encoded, "base64"));
  });
}

async function send(name: NotifyFormat, notice: Notice): Promise<Received> {
  const { received, warnings } = await sendNotice({ NOTIFY_FORMAT: name }, notice, (response) =>
    response.writeHead(200).end('{"ok":true,"success":true}'),
  );
  assert.equal([received.length, warnings], [1, []], name);
  return received[0] as Received;
}

test("every service shows the same two lines", async () => {
  assert.equal(NOTIFY_FORMAT_NAMES, ["json", ...NAMES]);
  for (const name of NAMES)
    assert.is(
      SERVICES[name](await send(name, FAILED)),
      "Failed: deploy of loop, blue → green (verdict error, exit code 1)\n42.1 s · 2 requests interrupted · green fails its clients",
      name,
    );
});

test("no service reads markup, mentions or more lines in foreign text", async () => {
  const message =
    "a & b &lt; <!channel> <@U1> <https://evil.example|click> @everyone [text](https://evil.example) " +
    "*b* _i_ ~s~ `c` ||s|| \\ a=1&payload=x + % \x1b[2J\r\n# Done: deploy\u2028> of loop";
  const notice = { ...FAILED, message };
  const { title, details } = inWords(notice);
  for (const name of NAMES) {
    const text = SERVICES[name](await send(name, notice));
    assert.is(text, `${title}\n${details}`, name);
    assert.is(text.split(/[\n\r\u2028\u2029]/).length, 2, name);
  }
});

test("the longest text fits each service, whatever it consists of", async () => {
  for (const name of NAMES)
    for (const character of ["&", "_", "é", "漢", "😀"]) {
      const text = SERVICES[name](await send(name, { ...FAILED, message: character.repeat(10_000) }));
      assert.ok(text.endsWith(`${character}…`), `${name}: ${text.slice(-10)}`);
    }
});

test("a long title that is not ASCII is several encoded words", async () => {
  const notice = { ...FAILED, project: "é→漢😀".repeat(20) };
  assert.is(SERVICES.ntfy(await send("ntfy", notice)).split("\n")[0], inWords(notice).title);
  const plain = { ...FAILED, from: undefined };
  assert.is((await send("ntfy", plain)).headers.title, "Failed: deploy of loop (verdict error, exit code 1)");
});

test("ntfy rings louder for a run that failed, and loudest when somebody has to act", async () => {
  const shown = async (notice: Notice) => {
    const { priority, tags } = (await send("ntfy", notice)).headers;
    return `${priority} ${tags}`;
  };
  assert.is(await shown({ ...FAILED, result: "done", exitCode: 0 }), "default heavy_check_mark");
  assert.is(await shown(FAILED), "high warning");
  assert.is(await shown({ ...FAILED, exitCode: 3 }), "urgent rotating_light");
});
test.run();
