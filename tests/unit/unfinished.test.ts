import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { isStillIntended } from "../../lib/release/unfinished.ts";
import type { Entry } from "../../lib/run/history.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { RunRecord } from "../../lib/run/record.ts";

const NOW = Date.parse("2026-11-24T03:00:00Z");
const at = (minutes: number): string => new Date(NOW + minutes * 60_000).toISOString();
const recordOf = (since: string) => ({ verb: "rollback" as const, pid: 1, since });
const entry = (time: string, rest: Partial<Entry> = {}): Entry => ({
  time,
  verb: "deploy",
  result: "done",
  message: "",
  ...rest,
});

test("an interrupted rollback is finished for ten minutes, but not weeks later and not if its time is in the future", () => {
  const intended = [-20_000, -11, -10, -1, 0, 1, 600].filter((minutes) =>
    isStillIntended(recordOf(at(minutes)), [], NOW),
  );
  assert.equal(intended, [-10, -1, 0]);
  assert.not(isStillIntended(recordOf("yesterday"), [], NOW));
});

test("the ten minutes count from the last update of its record, plus the time in which a draining run writes none", () => {
  const updatedAt = (minutes: number) => ({ ...recordOf(at(-60)), updated: at(minutes) });
  const intended = (silentSeconds: number) =>
    [-26, -25, -11, -10, 0, 1].filter((minutes) =>
      isStillIntended(updatedAt(minutes), [], NOW, silentSeconds),
    );
  assert.equal(intended(0), [-10, 0]);
  assert.equal(intended(900), [-25, -11, -10, 0]);
});

test("it is not finished after another successful run; its own history entry does not count as one", () => {
  assert.ok(isStillIntended(recordOf(at(-5)), [entry(at(-8)), entry(at(-5))], NOW));
  for (const minutes of [-4, 0])
    assert.not(isStillIntended(recordOf(at(-5)), [entry(at(minutes)), entry(at(-8))], NOW));
  assert.ok(
    isStillIntended(recordOf(at(-5)), [entry(at(600))], NOW),
    "that entry was written while the clock was ahead",
  );
});

test("a later run that failed before it changed or recovered anything does not count", () => {
  const colors = { from: "blue", to: "green" } as const;
  const intended = (rest: Partial<Entry>) => isStillIntended(recordOf(at(-5)), [entry(at(-4), rest)], NOW);
  for (const result of ["DockerError", "EmptyVaultError", "InterruptedError", "UnverifiedError", "killed"])
    assert.ok(intended({ result }), result);
  assert.ok(intended({ result: "HealthError", ...colors }), "its changes were undone");
  for (const result of ["done", "done, interrupted"]) assert.not(intended({ result }), result);
  for (const result of ["killed", "StopError", "NotBackError", "NginxReloadError"])
    assert.not(intended({ result, ...colors }), result);
});

test("a retry that ends early leaves the record to the next run with a new update time", async () => {
  const folder = await tempFolder("unfinished");
  const file = join(folder, "lock");
  const readRecord = async () => RunRecord.parse(JSON.parse(await readFile(file, "utf8")));
  const take = () => takeLock(file, "rollback", () => undefined);
  const first = await take();
  first.record({ from: "blue", to: "green" });
  first.end("its own record");
  const left = await readRecord();
  await sleep(5);
  (await take()).end("the earlier record");
  const { updated, ...rest } = await readRecord();
  assert.equal({ ...rest, updated: left.updated }, left);
  assert.ok(Date.parse(updated ?? "") > Date.parse(left.updated ?? ""), `${updated}, ${left.updated}`);
  await rm(folder, { recursive: true });
});
test.run();
