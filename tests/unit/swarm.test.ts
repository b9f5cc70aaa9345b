import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { compose } from "../../lib/docker/compose.ts";
import { type Context, readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";
import { swarm } from "../../lib/swarm/swarm.ts";

const tests = suite<{ folder: string; context: Context }>("the commands of a swarm");

const GREEN = `{"name":"loop-api-green","id":"1","updated":"2026-11-26T08:00:00Z","labels":{"loop.project":"loop","loop.image":"sha256:1"},"mode":{"Replicated":{"Replicas":0}},"image":"127.0.0.1:1/loop-api:green","mounts":null}`;

const IMAGE = `{"Id":"sha256:1","Size":1,"Architecture":"amd64","RootFS":{}}`;

/** An engine with a stopped service of green, whose image the tag of green names, and nothing of blue. */
const ENGINE = `#!/bin/sh
echo "$*" >> "$(dirname "$0")/log"
case "$*" in
  *" config "*) echo '{"services":{"loop-api-green":{}}}' ;;
  "service inspect"*) echo '${GREEN}'; echo "no such service: loop-api-blue" >&2; exit 1 ;;
  "container inspect"*) echo "No such container: loop-api-blue
No such container: loop-api-green" >&2; exit 1 ;;
  "image inspect --format"*) echo '{"id":"sha256:1","digests":[]}' ;;
  "image inspect"*) echo '[${IMAGE}]' ;;
  "node ls"*|"info"*) echo node-1 ;;
esac
`;

tests.before.each(async (bed) => {
  const folder = await tempFolder("swarm-commands");
  const DOCKER_CMD = join(folder, "docker");
  await writeFile(DOCKER_CMD, ENGINE, { mode: 0o755 });
  const environment = {
    PATH: process.env.PATH ?? "",
    DOCKER_CMD,
    ENGINE: "swarm",
    COMPOSE_PROJECT_NAME: "loop",
  };
  const settings = loadSettings(environment, "/nonexistent", "nothing");
  Object.assign(bed, { folder, context: readOnlyContext(settings, createLog({ quiet: true })) });
});
tests.after.each(({ folder }) => rm(folder, { recursive: true }));

/** The commands that change something. */
const changes = async (folder: string): Promise<string[]> =>
  (await readFile(join(folder, "log"), "utf8"))
    .split("\n")
    .filter((line) => /^(service (scale|rm|create|update)|tag|rm|stop)\b/.test(line));

// A run may be killed between any two of them.
tests("the local name moves to a new image when no service uses it any more", async ({ folder, context }) => {
  const absent = await compose.inspectColors(context);
  const { exitCode, stdall } = await swarm.recreate(context, "green", absent.green, context.settings.api);
  assert.is(exitCode, 0, stdall);
  const commands = (await changes(folder)).map((line) => line.replace(/ --.*/, ""));
  assert.equal(commands, [
    "service scale",
    "service rm loop-api-green",
    "tag sha256:1 127.0.0.1:1/loop-api:green",
    "service create",
    "service update",
  ]);
});

tests.run();
