import { symlink } from "node:fs/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { activeUpstream, readKept, upstreamOf } from "../../lib/nginx/link.ts";
import { connectionsTo } from "../../lib/nginx/open-requests.ts";
import { nextTags, parseLogs, renderTags, tagOf } from "../../lib/nginx/sessions.ts";
import type { Settings } from "../../lib/settings.ts";

test("each container has a tag of its own; a color without a container has none", () => {
  assert.match(tagOf("a"), /^[0-9a-f]{8}$/);
  assert.is.not(tagOf("a"), tagOf("b"));
  const [, tagged = "", tags = ""] = renderTags(nextTags("", { blue: "a", green: "b" })).split("\n");
  assert.match(tagged, `{ default ""; ${tagOf("a")} blue; ${tagOf("b")} green; }`);
  assert.match(tags, `{ default ""; blue ${tagOf("a")}; green ${tagOf("b")}; }`);
  assert.not.match(renderTags(nextTags("", { blue: "a", green: "" })), "green");
});

test("the tag that nginx has used for a color so far still leads to it", () => {
  const first = renderTags(nextTags("", { blue: "a", green: "b" }));
  const second = renderTags(nextTags(first, { blue: "a", green: "c" }));
  assert.match(second, `${tagOf("a")} blue; ${tagOf("c")} green; ${tagOf("b")} green; }`);
  assert.match(second, `{ default ""; blue ${tagOf("a")}; green ${tagOf("c")}; }`);
  assert.not.match(renderTags(nextTags(second, { blue: "a", green: "d" })), tagOf("b"));
});

test("the link names the kept color, and its own time is that of the switch", async () => {
  const nginxFolder = await tempFolder("kept");
  const settings = { nginxFolder } as Settings;
  assert.is(await readKept({ settings }), undefined);
  await symlink(upstreamOf("green", "sessions"), activeUpstream(settings));
  const kept = await readKept({ settings });
  assert.is(kept?.color, "blue");
  assert.ok(Math.abs(Date.now() - (kept?.sinceMs ?? 0)) < 5000);
});

const TIMES = { startedMs: 1000_000, nginxStartedMs: 0, recentMs: 1700_000, nowMs: 2000_000 };

test("a color has sessions if it created one since it was started, or if nginx was started after it", () => {
  const created = (text: string, more = {}) => parseLogs(text, { ...TIMES, ...more }).created;
  assert.is(created("1000.500 blue 2ea61f93\n"), true);
  assert.is(created("999.900 blue 2ea61f93\n"), false, "a session of its previous release");
  assert.is(created("\n"), false);
  assert.is(created("\n", { nginxStartedMs: 1040_000 }), true, "nginx's memory is younger");
  assert.is(created("\n", { nginxStartedMs: 1010_000 }), false, "both were started together");
});

test("the last use and the sessions in use come from the log of uses", () => {
  const uses = ["1500.000 blue aaaa", "1800.000 blue aaaa", "1900.000 blue bbbb", "1900.500 blue aaaa"];
  const { usedMs, inUse } = parseLogs(`\n${uses.join("\n")}\n`, TIMES);
  assert.equal([usedMs, inUse], [1900_500, 2]);
  assert.is(parseLogs(`\n${uses.slice(0, 1).join("\n")}\n`, TIMES).inUse, 0);
  assert.is(parseLogs("\n", TIMES).usedMs, 0);
  assert.is(parseLogs("\n", { ...TIMES, nginxStartedMs: 1600_000 }).usedMs, 1600_000, "unknown before");
  for (const wrong of ["x blue aaaa", "99999999999.000 blue aaaa", "1900.000 red aaaa"])
    assert.is(parseLogs(`\n1500.000 blue aaaa\n${wrong}`, TIMES).usedMs, 1500_000, wrong);
  assert.is(parseLogs("\n1500.000 blue aaaa\n16", TIMES).usedMs, 1500_000, "a line that is being written");
});

test("connections to a color are counted in the kernel's table", () => {
  const table = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1",
    "   1: 040012AC:D0AC 030012AC:1F91 01 00000000:00000000 00:00000000 00000000   101        0 2",
    "   2: 040012AC:D0AE 030012AC:1F91 06 00000000:00000000 00:00000000 00000000   101        0 3",
    "   3: 040012AC:D0B0 050012AC:1F91 01 00000000:00000000 00:00000000 00000000   101        0 4",
  ].join("\n");
  assert.is(connectionsTo(["172.18.0.3"], 8081, table), 1);
  assert.is(connectionsTo(["172.18.0.3", "172.18.0.5"], 8081, table), 2);
  assert.is(connectionsTo([], 8081, table), 0);
  assert.is(connectionsTo(["172.18.0.3"], 80, table), 0, "another port");
  assert.is(
    connectionsTo(["172.18.0.3"], 80, table.replaceAll(":1F91", ":0050")),
    1,
    "a port with leading zeros",
  );
});
test.run();
