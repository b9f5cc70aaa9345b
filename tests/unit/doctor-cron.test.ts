import { mkdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { checkCronPath, checkZone, compareZones, oddDay } from "../../lib/doctor/cron.ts";

const NOVEMBER = Date.parse("2026-11-26T12:00:00Z");

test("the same time zone is fine", () => {
  const { level, finding } = compareZones("Europe/Berlin", "Europe/Berlin", NOVEMBER);
  assert.equal(
    [level, finding],
    ["ok", 'a cron job with the schedule "0 3 * * *" would run at 03:00 Europe/Berlin'],
  );
});

test("another time zone is a warning with the local time of a nightly release", () => {
  const { level, finding } = compareZones("UTC", "Asia/Kolkata", NOVEMBER);
  assert.is(level, "warning");
  assert.match(
    finding,
    'cron uses UTC, this shell Asia/Kolkata: a cron job with the schedule "0 3 * * *" would run at 08:30',
  );
});

test("two names of one zone are the same time", () => {
  assert.is(compareZones("Etc/UTC", "UTC", NOVEMBER).level, "ok");
});

test("an unknown time zone is a warning", () => {
  assert.is(compareZones(undefined, "UTC", NOVEMBER).level, "warning");
});

test("a time that the change to daylight saving time skips, or repeats, is a warning", () => {
  assert.equal(oddDay("03:00", "Europe/Helsinki", NOVEMBER), { date: "2027-03-28", times: "none" });
  assert.equal(oddDay("02:00", "Europe/Berlin", NOVEMBER), { date: "2027-03-28", times: "none" });
  assert.equal(oddDay("02:00", "Europe/Berlin", Date.parse("2026-08-01T00:00Z")), {
    date: "2026-10-25",
    times: "two",
  });
  assert.is(oddDay("03:00", "Europe/Berlin", NOVEMBER), undefined);
  assert.is(oddDay("03:00", "UTC", NOVEMBER), undefined);
  const { level, finding } = compareZones("Europe/Helsinki", "Europe/Helsinki", NOVEMBER);
  assert.is(level, "warning");
  assert.match(finding, "on 2027-03-28, 03:00 does not exist in Europe/Helsinki");
});

test("cron's zone is that of the system, not TZ of this shell", async () => {
  const { TZ } = process.env;
  process.env.TZ = "Pacific/Chatham"; // a quarter of an hour away from every full hour
  try {
    const { level, finding } = await checkZone();
    assert.is(level, "warning");
    assert.match(finding, /Pacific\/Chatham: .* would run at \d\d:(45|15)/);
  } finally {
    if (TZ === undefined) delete process.env.TZ;
    else process.env.TZ = TZ;
  }
});

test("a PATH without node is a warning with a line for the crontab", async () => {
  const folder = await tempFolder("doctor-cron");
  await mkdir(join(folder, "bin"));
  const empty = await checkCronPath(join(folder, "bin"));
  assert.is(empty.level, "warning");
  assert.match(empty.finding, "without node");
  assert.match(empty.next ?? "", /PATH=\/\S+:\/usr\/bin:\/bin/);
  await symlink(process.execPath, join(folder, "bin/node"));
  await symlink("/bin/true", join(folder, "bin/docker"));
  assert.is((await checkCronPath(join(folder, "bin"))).level, "ok");
  await rm(folder, { recursive: true });
});
test.run();
