import { spawn } from "node:child_process";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prefixOf, tempFolder } from "../../bench/testbed/temp.ts";
import { endProcesses, removeFolders, removeFromDocker } from "../leftovers.ts";

const LISTS: Record<string, string> = {
  ps: `c1 loop-test-ab12-x-nginx nginx:1.30 loop-test-ab12-x
c2 named-otherwise nginx:1.30 loop-test-ab12-x
c3 clever_name loop-test-ab12-x-api:blue
c4 loop-test-cd34-x-nginx nginx:1.30 loop-test-cd34-x
c5 loop-nginx nginx:1.30 loop`,
  "network ls": "n1 bridge \nn2 loop-test-ab12-x_default loop-test-ab12-x",
  "volume ls": "v1 v1 loop",
  images: "<none>:<none> <none>:<none>\nloop-test-ab12-x-auth:latest loop-test-ab12-x-auth:latest",
};

test("only items of this run are removed from Docker, and they are reported", async () => {
  const calls: string[] = [];
  const report = await removeFromDocker("ab12", async (...args) => {
    const call = args.join(" ");
    const [, list] = Object.entries(LISTS).find(([start]) => call.startsWith(start)) ?? [];
    if (list === undefined) calls.push(call);
    return call.startsWith("rmi") ? undefined : list;
  });
  assert.equal(calls, [
    "rm --force --volumes c1 c2 c3",
    "network rm n2",
    "rmi --force loop-test-ab12-x-auth:latest",
  ]);
  assert.equal(report, [
    "containers loop-test-ab12-x-nginx, named-otherwise, clever_name (not all could be removed)",
    "networks loop-test-ab12-x_default (not all could be removed)",
    "images loop-test-ab12-x-auth:latest (not all could be removed)",
  ]);
});

test("without items of this run or without Docker, nothing is removed or reported", async () => {
  const calls: string[] = [];
  const outputs = [undefined, "", LISTS.ps];
  for (const output of outputs)
    assert.equal(
      await removeFromDocker("ef56", async (...args) => {
        calls.push(args[0] ?? "");
        return output;
      }),
      [],
    );
  assert.equal(
    calls,
    outputs.flatMap(() => ["ps", "network", "volume", "images"]),
  );
});

test("only folders of this run are removed", async () => {
  const parent = await tempFolder("leftovers");
  for (const name of ["loop-test-ab12-x", "loop-test-cd34-x", "x-loop-test-ab12-"]) {
    await mkdir(join(parent, name));
    await writeFile(join(parent, name, "file"), "");
  }
  assert.equal(await removeFolders("ab12", parent), []);
  assert.equal((await readdir(parent)).sort(), ["loop-test-cd34-x", "x-loop-test-ab12-"]);
  await rm(parent, { recursive: true });
});

test("only processes with this run's id in their environment are ended", async () => {
  const sleeper = (env: Record<string, string>) =>
    spawn("sleep", ["60"], {
      detached: true,
      stdio: "ignore",
      env: { PATH: process.env.PATH ?? "", ...env },
    });
  const own = [sleeper({ LOOP_TEST_RUN: "ab12" }), sleeper({ COMPOSE_PROJECT_NAME: "loop-test-ab12-x" })];
  const others = [sleeper({ LOOP_TEST_RUN: "ab123" }), sleeper({ COMPOSE_PROJECT_NAME: "loop-test-x" })];
  try {
    const ends = own.map((child) => new Promise((resolve) => child.once("exit", (_, by) => resolve(by))));
    await endProcesses("ab12");
    assert.equal(await Promise.all(ends), ["SIGKILL", "SIGKILL"]);
    for (const { exitCode, signalCode } of others) assert.equal([exitCode, signalCode], [null, null]);
  } finally {
    for (const child of [...own, ...others]) child.kill("SIGKILL");
  }
});

test("without an id, nothing is removed", async () => {
  const parent = await tempFolder("leftovers");
  await mkdir(join(parent, "loop-test-x"));
  const attempts = [removeFromDocker("", async () => LISTS.ps), removeFolders("", parent), endProcesses("")];
  for (const { status } of await Promise.allSettled(attempts)) assert.is(status, "rejected");
  assert.equal(await readdir(parent), ["loop-test-x"]);
  await rm(parent, { recursive: true });
});

test("names start with the run's id, if there is one", () => {
  assert.is(prefixOf("ab12"), "loop-test-ab12-");
  assert.is(prefixOf(""), "loop-test-");
});

test.run();
