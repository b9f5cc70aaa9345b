import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseAccess } from "../../lib/nginx/access-log.ts";
import { count, judge, newTally, type Tally, trafficOf } from "../../lib/release/verdict.ts";

const LIMITS = { judge: { errors: 3, percent: 5, responses: 20 } };
const line = (request: string, more: string): string =>
  `172.18.0.1 [2026-11-25T03:00:00+00:00] "${request}" 200 73 color=green upstream=172.18.0.4:8081 upstream_status=200 time=0.012 upstream_time=0.011 ${more}`;

test("a line of the access log is a color, a status, a duration and what was asked", () => {
  const plain = line("POST /mcp HTTP/1.1", 'to=loop_api_green run=0 mcp="-" tool="-"');
  const atMs = Date.UTC(2026, 10, 25, 3);
  assert.equal(parseAccess(plain), { color: "green", status: 200, atMs, seconds: 0.012, what: "POST /mcp" });
  const mcp = line("POST /mcp HTTP/1.1", 'to=loop_api_green_kept run=0 mcp="tools/call" tool="search notes"');
  assert.is(parseAccess(mcp)?.what, "tools/call search notes");
  const retried = line("GET / HTTP/1.1", 'to=loop_api_green run=0 mcp="-" tool="-"').replace(
    "upstream_time=0.011",
    "upstream_time=0.001, 0.010",
  );
  assert.is(parseAccess(retried)?.what, "GET /");
});

test("a request that a canary left to the active color is an error of the canary", () => {
  const refused = line("POST /mcp HTTP/1.1", 'to=loop_api_green_canary run=0 mcp="-" tool="-"')
    .replace("color=green", "color=blue")
    .replace("upstream=172.18.0.4:8081", "upstream=172.18.0.4:8081, 127.0.0.1:8405");
  const { color, status } = parseAccess(refused) ?? {};
  assert.equal([color, status], ["green", 502]);
  const own = parseAccess(line("POST /mcp HTTP/1.1", 'to=loop_api_green_canary run=0 mcp="-" tool="-"'));
  assert.equal([own?.color, own?.status], ["green", 200]);
});

test("requests of runs, of auth and to nginx itself, and other lines, do not count", () => {
  for (const wrong of [
    line("GET /health HTTP/1.1", 'to=loop_api_green run=1 mcp="-" tool="-"'),
    line("POST /token HTTP/1.1", 'to=loop_auth run=0 mcp="-" tool="-"'),
    line("GET /_loop/x HTTP/1.1", 'to=- run=0 mcp="-" tool="-"'),
    line("GET / HTTP/1.1", ""),
    "2026/11/25 03:00:00 [warn] 12#12: something",
    "",
  ])
    assert.is(parseAccess(wrong), undefined, wrong);
});

test("a client cannot forge a field: nginx escapes quotes", () => {
  const forged = line(
    "GET /\\x22 500 1 color=blue time=9 to=loop_api_blue run=0 HTTP/1.1",
    'to=loop_api_green run=0 mcp="\\x22 to=loop_api_blue run=0 mcp=\\x22" tool="-"',
  );
  const { color, status, seconds } = parseAccess(forged) ?? {};
  assert.equal([color, status, seconds], ["green", 200, 0.012]);
});

/** A tally of so many responses, of which some have status 500. */
function tally(responses: number, errors: number): Tally {
  const counted = newTally();
  for (let i = 0; i < responses; i++)
    count(counted, {
      color: "green",
      status: i < errors ? 500 : 404,
      atMs: 0,
      seconds: (i + 1) / 100,
      what: `GET /${i}`,
    });
  return counted;
}

test("bad: three responses with 5xx, 5 % of all, and a larger share than before by more than chance", () => {
  const [never, before] = [tally(1000, 0), tally(1000, 20)];
  assert.is(judge(tally(3, 3), newTally(), LIMITS), "bad");
  assert.is(judge(tally(60, 3), never, LIMITS), "bad");
  assert.is(judge(tally(61, 3), never, LIMITS), "good", "below 5 %");
  assert.is(judge(tally(2, 2), never, LIMITS), "too few", "two are not enough");
  assert.is(judge(tally(3, 3), before, LIMITS), "bad");
  assert.is(judge(tally(50, 3), before, LIMITS), "good", "2 % before: 3 of 50 are chance");
  assert.is(judge(tally(50, 9), before, LIMITS), "bad");
  assert.is(judge(tally(100, 50), tally(100, 50), LIMITS), "good", "no worse than before");
  assert.is(judge(tally(20, 0), before, LIMITS), "good");
  assert.is(judge(tally(19, 0), before, LIMITS), "too few");
});

test("a release that repairs most of what failed before is good", () => {
  assert.is(judge(tally(2000, 120), tally(20_000, 10_000), LIMITS), "good");
  assert.is(judge(tally(1000, 60), tally(3000, 2700), LIMITS), "good");
});

test("the error rate of a few responses before is not exact: 1 of 1 does not excuse everything, 2 of 20 excuses 4 of 20", () => {
  assert.is(judge(tally(1000, 1000), tally(1, 1), LIMITS), "bad");
  assert.is(judge(tally(20, 4), tally(20, 2), LIMITS), "good");
  assert.is(judge(tally(20, 20), tally(20, 2), LIMITS), "bad");
});

test("an API that always fails 2 % of its calls is taken for worse in less than one of 500 releases", () => {
  // The verdict is formed after each response, so chance gets many tries. A fixed sequence, so that the test is the same each time.
  let state = 1;
  const random = (): number => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
  const before = tally(2000, 40);
  const isTaken = (): boolean => {
    const now = newTally();
    for (let i = 0; i < 300; i++) {
      const status = random() < 0.02 ? 500 : 200;
      count(now, { color: "green", status, atMs: 0, seconds: 0.01, what: "POST /mcp" });
      if (judge(now, before, LIMITS) === "bad") return true;
    }
    return false;
  };
  assert.ok(Array.from({ length: 5000 }, isTaken).filter(Boolean).length < 10);
});

test("the figures: responses, errors, and the time within which 95 % ended", () => {
  assert.equal(trafficOf(tally(100, 7)), { responses: 100, errors: 7, p95: 0.95 });
  assert.equal(trafficOf(newTally()), { responses: 0, errors: 0, p95: null });
});
test.run();
