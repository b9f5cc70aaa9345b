import { symlink } from "node:fs/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { readShare, writeShare } from "../../lib/nginx/canary.ts";
import { activeUpstream, parseTarget, readCanary, readKept, upstreamOf } from "../../lib/nginx/link.ts";
import type { Settings } from "../../lib/settings.ts";
import { replaceLink } from "../../lib/util/atomic.ts";

test("the link names the canary, which is no kept color", async () => {
  const settings = { nginxFolder: await tempFolder("canary") } as Settings;
  assert.is(await readCanary({ settings }), undefined);
  await symlink(upstreamOf("green", "canary"), activeUpstream(settings));
  assert.is(await readCanary({ settings }), "blue");
  assert.is(await readKept({ settings }), undefined);
  await replaceLink(activeUpstream(settings), upstreamOf("green", "sessions"));
  assert.is(await readCanary({ settings }), undefined);
});

test("a target of the link is a color and what the other one gets", () => {
  assert.equal(parseTarget("green-upstream.conf"), { active: "green", otherGets: "nothing" });
  assert.equal(parseTarget("blue-upstream-canary.conf"), { active: "blue", otherGets: "canary" });
  for (const wrong of ["", "blue", "red-upstream.conf", "../blue-upstream.conf", "blue-upstream.conf2"])
    assert.is(parseTarget(wrong), undefined, wrong);
});

test("the share of the last canary is read from the file that nginx reads", async () => {
  const nginxFolder = await tempFolder("share");
  assert.is(await readShare({ nginxFolder }), undefined);
  for (const percent of [0.25, 50]) {
    await writeShare({ nginxFolder, canary: { percent, seconds: 60 } });
    assert.is(await readShare({ nginxFolder }), percent);
  }
});
test.run();
