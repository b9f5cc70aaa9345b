import { test } from "uvu";
import * as assert from "uvu/assert";
import { readCacheRecords } from "../../lib/docker/build-cache.ts";
import { staleRecords, staleReferences } from "../../lib/release/prune.ts";
import type { Entry } from "../../lib/run/history.ts";

const at = (minute: number) => Date.UTC(2030, 0, 1, 3, minute);
const deploy = (minute: number, result = "done"): Entry => ({
  time: new Date(at(minute)).toISOString(),
  verb: "deploy",
  seconds: 60,
  result,
  message: "",
});
const record = (id: string, created: number, used: number, inUse = false) => ({
  id,
  created: at(created) + 30_000,
  used: at(used) + 30_000,
  inUse,
});

test("only records that this stack built and that nothing has used since the last release began are stale", () => {
  const runs = [deploy(0), deploy(10, "HealthError"), deploy(20), deploy(30)];
  const records = [
    record("built by the first release, unused since", 0, 0),
    record("built by a failed release", 10, 10),
    record("used by the last release", 0, 30),
    record("used by another project since", 20, 45),
    record("in use", 0, 0, true),
    record("built by another project", 5, 5),
    record("built by the current release, which is not in the history yet", 40, 40),
  ];
  assert.equal(
    staleRecords(records, runs).map(({ id }) => id),
    ["built by the first release, unused since", "built by a failed release"],
  );
});

test("Docker's list of its build cache is parsed, including a record that was never used", () => {
  const listed = (LastUsedAt: string) => ({
    ID: "abc*",
    CreatedAt: "2030-01-01 04:00:00.123456789 +0100 CET",
    LastUsedAt,
    InUse: "false",
  });
  const read = readCacheRecords(JSON.stringify([listed("2030-01-01 03:10:00 +0000 UTC"), listed("")]));
  assert.equal(read, [
    { id: "abc", created: at(0) + 123, used: at(10), inUse: false },
    { id: "abc", created: at(0) + 123, used: at(0) + 123, inUse: false },
  ]);
  assert.equal(readCacheRecords("null"), []);
});

test("without a successful release in the history, nothing is stale", () => {
  assert.equal(staleRecords([record("a", 0, 0)], []), []);
  assert.equal(staleRecords([record("a", 0, 0)], [deploy(0, "BuildError")]), []);
});
test("only what a pull left of images that nothing needs is stale; a tag that moved is the owner's", () => {
  const [a, b] = [`sha256:${"a".repeat(64)}`, `sha256:${"b".repeat(64)}`];
  const row = (id: string, tag: string, digest: string, repository = "h:5000/api") => ({
    id,
    repository,
    tag,
    digest,
  });
  const references = [
    row("old", "1", a),
    row("new", "2", b),
    row("own", "3", "<none>"),
    row("old", "1", a, "h:5000/other"),
    row("old", "mine", a),
  ];
  const stale = (sources: string[], ...needed: string[]) =>
    staleReferences(sources, references, new Set(needed));
  assert.equal(stale([`h:5000/api:1@${a}`, `h:5000/api:2@${b}`], "new"), ["h:5000/api:1", `h:5000/api@${a}`]);
  assert.equal(stale([`h:5000/api:3@${a}`]), [`h:5000/api@${a}`], "the tag names another image by now");
  assert.equal(stale([`h:5000/api@${b}`]), [`h:5000/api@${b}`], "pulled by digest: no tag is known");
  assert.equal(stale(["h:5000/api:3", "gone/api:1@sha256:c"]), [], "killed, or removed before");
});
test.run();
