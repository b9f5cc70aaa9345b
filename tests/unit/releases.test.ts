import { test } from "uvu";
import * as assert from "uvu/assert";
import { byNewest, type Release, servedTimes, sourceOf } from "../../lib/release/releases.ts";
import { describeReleases, duration } from "../../lib/release/releases-text.ts";
import type { Entry } from "../../lib/run/history.ts";

const at = (minute: number): string => new Date(minute * 60_000).toISOString();
const run = (minute: number, image: string | undefined, result = "done"): Entry => ({
  time: at(minute),
  verb: "deploy",
  seconds: 60,
  result,
  message: "",
  ...(image === undefined ? {} : { image }),
});
const minutes = (served: ReturnType<typeof servedTimes>) =>
  Object.fromEntries([...served].map(([id, { sinceMs, ms }]) => [id, [sinceMs / 60_000, ms / 60_000]]));

test("an image serves from the end of its run to the end of the next successful one", () => {
  const runs = [run(0, "a"), run(10, "b"), run(15, "c", "HealthError"), run(20, "a"), run(30, undefined)];
  assert.equal(minutes(servedTimes(runs, "a", 50 * 60_000)), { a: [21, 39], b: [11, 10] });
});

test("what serves without an entry in the history is the newest", () => {
  const served = servedTimes([run(0, "a"), run(10, "b")], "c", 50 * 60_000);
  assert.equal(minutes(served), { a: [1, 10], b: [11, 39], c: [50, 0] });
  const kept = ["a", "b", "c", "d", "e"].map((id, i) => ({ id, release: i + 1 }));
  assert.equal(
    kept.sort(byNewest(served)).map(({ id }) => id),
    ["c", "b", "a", "e", "d"], // those without a time last, by number
  );
});

test("the source of an image is that of the last run that pulled it", () => {
  const runs = [
    { ...run(0, "a"), source: "api:1@x" },
    { ...run(1, "a"), source: "api:2@x" },
    run(2, "a"),
    run(3, "b"),
  ];
  assert.equal(
    ["a", "b", undefined].map((id) => sourceOf(runs, id)),
    ["api:2@x", undefined, undefined],
  );
});

test("a duration has its two largest units", () => {
  assert.equal([0, 59_999, 61 * 60_000, 25 * 3_600_000, 400 * 86_400_000].map(duration), [
    "0 min",
    "0 min",
    "1 h 1 min",
    "1 d 1 h",
    "400 d 0 h",
  ]);
});

test("the list has one line per release, aligned, and escapes what an image says of itself", () => {
  const image = {
    id: `sha256:${"b".repeat(64)}`,
    built: at(0),
    bytes: 212_400_000,
    architecture: "amd64",
    content: "",
    revision: "4f2a\u001b[31m",
    project: undefined,
    service: undefined,
  };
  const one: Release = {
    release: 12,
    id: image.id,
    image,
    source: `ghcr.io/me/api:1.4@sha256:${"c".repeat(64)}`,
    served: { sinceMs: 0, ms: 90_000_000 },
    color: "blue",
    serves: true,
  };
  const other: Release = {
    ...one,
    release: 9,
    source: undefined,
    served: undefined,
    color: undefined,
    serves: false,
  };
  const lines = describeReleases([one, other]).split("\n");
  assert.match(lines[0] ?? "", /^release {2}served since \(UTC\) {2}served for {2}image +revision +size$/);
  assert.match(
    lines[1] ?? "",
    /^12 {7}1970-01-01 00:00 {4}1 d 1 h +ghcr\.io\/me\/api:1\.4 @ sha256:c{12} +4f2a\S+ +212 MB +blue serves it$/,
  );
  assert.not.match(lines[1] ?? "", "\u001b");
  assert.match(lines[2] ?? "", /^9 {8}unknown +unknown +sha256:b{12} +\S+ +212 MB$/);
  assert.match(lines.at(-1) ?? "", "--to N");
  assert.match(describeReleases([]), "No release is kept yet");
});
test.run();
