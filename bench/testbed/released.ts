import * as assert from "uvu/assert";
import type { ProcessOutput } from "zx";
import { COLORS, getInactiveColor } from "../../lib/color.ts";
import { tagImage } from "../../lib/docker/image.ts";
import { imageOf } from "../../lib/docker/names.ts";
import { releaseTagOf } from "../../lib/docker/release-tags.ts";
import { recordApi } from "../../lib/engine/apis.ts";
import { writeConfiguration } from "../../lib/nginx/configuration.ts";
import { repairLink } from "../../lib/nginx/link.ts";
import { writeTags } from "../../lib/nginx/sessions.ts";
import { markActive } from "../../lib/release/mark.ts";
import { migrateState } from "../../lib/release/migrate.ts";
import { createFolders } from "../../lib/release/oauth-folder.ts";
import { type Context, stepsOf } from "../../lib/run/context.ts";
import { addToHistory, DONE } from "../../lib/run/history.ts";
import { takeLock } from "../../lib/run/lock.ts";
import { createLog } from "../../lib/run/log.ts";
import { openLogFile } from "../../lib/run/log-file.ts";
import { openStateDir } from "../../lib/run/state-dir.ts";
import { loadSettings } from "../../lib/settings.ts";
import { pollUntil } from "../../lib/util/poll.ts";

/** What is needed of a `Scratch`. */
interface Stack {
  project: string;
  env: Record<string, string>;
  nginxContainer: string;
  docker(...args: string[]): Promise<ProcessOutput>;
  compose(...args: string[]): Promise<ProcessOutput>;
  get(path: string): Promise<{ status: number }>;
}

/**
 * Brings a new stack into the state that two releases leave: blue serves, green is on standby. It takes a third of their CPU
 * time: one Compose command builds and creates all containers, and the functions of a release write the files.
 * tests/engine/deploy-blue-green compares the result with that of two releases.
 */
export async function release(stack: Stack): Promise<void> {
  const settings = loadSettings(stack.env, "/nonexistent/.env.blue-green");
  openStateDir(settings);
  const options = { help: false, verbose: false, quiet: true, dryRun: false, acceptEmptyVault: false };
  const log = createLog({ quiet: true, file: openLogFile(settings.logFile, assert.unreachable) });
  const lock = await takeLock(settings.lockFile, "deploy", assert.unreachable);
  const { signal } = new AbortController();
  const context: Context = { settings, options, log, lock, signal, ...stepsOf(options, log, signal) };

  await migrateState(context);
  await createFolders(context);
  await writeConfiguration(context, false);
  const created = await stack.compose("--profile", "green", "up", "--no-start", "--build");
  assert.is(created.exitCode, 0, created.stdall);
  for (const color of COLORS) await recordApi(context, color, settings.api);
  await writeTags(context, "nothing"); // nginx reads these files when it starts
  await repairLink(context, "blue");
  const names = [stack.nginxContainer, `${stack.project}-auth`, `${stack.project}-api-blue`];
  const started = await stack.docker("start", ...names);
  assert.is(started.exitCode, 0, started.stdall);
  // As a run asks: the 502s until then must not count as responses of blue to clients.
  const serves = () =>
    stack.get(`/_loop/blue${settings.api.healthPath}`).then(
      ({ status }) => status === 200,
      () => false,
    );
  assert.ok(await pollUntil(60, serves), "blue does not serve");

  await markActive(context, "blue");
  await tagImage(context, imageOf(settings, "green"), releaseTagOf(settings, 1));
  await tagImage(context, imageOf(settings, "blue"), releaseTagOf(settings, 2));
  const time = new Date().toISOString();
  for (const to of ["green", "blue"] as const) {
    const from = getInactiveColor(to);
    const message = `Released ${from} → ${to}`;
    await addToHistory(settings.historyFile, { time, verb: "deploy", from, to, result: DONE, message });
  }
  lock.end("nothing");
}
