import { readFile, rm } from "node:fs/promises";
import { execInNginx } from "../docker/services.ts";
import { currentApis } from "../engine/apis.ts";
import { ConfigurationError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { replaceFile } from "../util/atomic.ts";
import { accessFile } from "./access.ts";
import { authFile } from "./auth.ts";
import { newKeyFile } from "./key.ts";
import { upstreamsFile } from "./upstreams.ts";
import { CONFIGURATION } from "./workers.ts";

/**
 * Writes the configuration files that depend on settings or on the colors, and a probe key when there is none. nginx reads them at its next
 * start or reload. A running nginx tests them first; if it rejects them, the old files are restored, because nginx may be
 * restarted at any time. Throws ConfigurationError, DeadlineError, and what the file system throws.
 */
export async function writeConfiguration(context: Context, nginxRuns: boolean): Promise<void> {
  const { settings } = context;
  const key = await newKeyFile(settings);
  const apis = await currentApis(context);
  const wanted = [
    ...[accessFile(settings), authFile(settings, apis), upstreamsFile(settings, apis)],
    ...(key ? [key] : []),
  ];
  const before = await Promise.all(wanted.map(({ file }) => readFile(file, "utf8").catch(() => undefined)));
  const changes = wanted.flatMap((generated, i) =>
    generated.content === before[i] ? [] : [{ ...generated, before: before[i] }],
  );
  if (changes.length === 0) return;
  const write = async (): Promise<void> => {
    for (const change of changes) await replaceFile(change.file, change.content, change.mode);
    if (!nginxRuns) return;
    const test = await execInNginx(context, ["nginx", "-t", "-q", "-c", CONFIGURATION]);
    if (test.exitCode === 0) return;
    for (const { before: content, ...change } of changes) {
      if (content === undefined) await rm(change.file);
      else await replaceFile(change.file, content, change.mode);
    }
    throw configurationError(context, test.stderr.trim());
  };
  const commands = changes.map(({ file }) => `write ${file}`);
  await context.change("write nginx's configuration", write, commands);
}

/** nginx rejected its configuration before anything was started. */
export const configurationError = ({ settings }: Context, details: string): ConfigurationError =>
  new ConfigurationError("nginx rejects its configuration", {
    details,
    next: `See why: ${settings.dockerCmd} exec ${settings.nginxContainer} nginx -t -c ${CONFIGURATION}
Fix it and run this again; the serving color was not touched.`,
  });
