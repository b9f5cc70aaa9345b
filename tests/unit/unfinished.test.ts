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
const note = (since: string) => ({ verb: "rollback" as const, pid: 1, since });
const entry = (time: string, rest: Partial<Entry> = {}): Entry => ({
  time,
  verb: "deploy",
  result: "done",
  message: "",
  ...rest,
});

test("a rollback that was cut off is meant again for ten minutes; weeks later, or in the future, it is not", () => {
  const meant = [-20_000, -11, -10, -1, 0, 1, 600].filter((minutes) =>
    isStillIntended(note(at(minutes)), [], NOW),
  );
  assert.equal(meant, [-10, -1, 0]);
  assert.not(isStillIntended(note("yesterday"), [], NOW));
});

test("the ten minutes begin with the last word in its record, and a run is silent while it drains", () => {
  const written = (minutes: number) => ({ ...note(at(-60)), updated: at(minutes) });
  const meant = (silent: number) =>
    [-26, -25, -11, -10, 0, 1].filter((minutes) => isStillIntended(written(minutes), [], NOW, silent));
  assert.equal(meant(0), [-10, 0]);
  assert.equal(meant(900), [-25, -11, -10, 0]);
});

test("once another run was done it is not; its own entry has the time that it began", () => {
  assert.ok(isStillIntended(note(at(-5)), [entry(at(-8)), entry(at(-5))], NOW));
  for (const minutes of [-4, 0])
    assert.not(isStillIntended(note(at(-5)), [entry(at(minutes)), entry(at(-8))], NOW));
  assert.ok(isStillIntended(note(at(-5)), [entry(at(600))], NOW), "of a clock that was ahead once");
});

test("a run since that failed before it moved or settled anything does not count", () => {
  const colors = { from: "blue", to: "green" } as const;
  const meant = (rest: Partial<Entry>) => isStillIntended(note(at(-5)), [entry(at(-4), rest)], NOW);
  for (const result of ["DockerError", "EmptyVaultError", "InterruptedError", "UnverifiedError", "killed"])
    assert.ok(meant({ result }), result);
  assert.ok(meant({ result: "HealthError", ...colors }), "what it began was taken back");
  for (const result of ["done", "done, interrupted"]) assert.not(meant({ result }), result);
  for (const result of ["killed", "StopError", "NotBackError", "NginxReloadError"])
    assert.not(meant({ result, ...colors }), result);
});

test("a retry that ends early leaves the record to the next one, written just then", async () => {
  const folder = await tempFolder("unfinished");
  const file = join(folder, "lock");
  const record = async () => RunRecord.parse(JSON.parse(await readFile(file, "utf8")));
  const take = () => takeLock(file, "rollback", () => undefined);
  const first = await take();
  first.record({ from: "blue", to: "green" });
  first.end("its own record");
  const left = await record();
  await sleep(5);
  (await take()).end("the earlier record");
  const { updated, ...rest } = await record();
  assert.equal({ ...rest, updated: left.updated }, left);
  assert.ok(Date.parse(updated ?? "") > Date.parse(left.updated ?? ""), `${updated}, ${left.updated}`);
  await rm(folder, { recursive: true });
});
test.run();
