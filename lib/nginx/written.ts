import { readFile, rm } from "node:fs/promises";
import { replaceFile } from "../atomic.ts";
import { execInNginx } from "../docker/frontdoor.ts";
import { ConfigurationError } from "../errors.ts";
import type { Stack } from "../stack.ts";
import { accessFile } from "./access.ts";
import { connectionsFile } from "./connections.ts";
import { newKeyFile } from "./key.ts";
import { CONFIGURATION } from "./workers.ts";

/** A file that a run writes for nginx to read. */
export interface Written {
  file: string;
  content: string;
  /** Its permissions. nginx's master reads it as root. */
  mode: number;
}

/**
 * Writes what nginx is to read of the settings, and a key where there is none. Where nginx runs it has to accept that, or
 * all is put back: it may be restarted at any time. It reads it at its next start or reload.
 * Throws ConfigurationError, DeadlineError, and what the file system throws.
 */
export async function writeConfiguration(stack: Stack, nginxRuns: boolean): Promise<void> {
  const { settings } = stack;
  const key = await newKeyFile(settings);
  const wanted = [accessFile(settings), connectionsFile(settings), ...(key ? [key] : [])];
  const before = await Promise.all(wanted.map(({ file }) => readFile(file, "utf8").catch(() => undefined)));
  const changes = wanted.flatMap((written, i) =>
    written.content === before[i] ? [] : [{ ...written, before: before[i] }],
  );
  if (changes.length === 0) return;
  const act = async (): Promise<void> => {
    for (const change of changes) await replaceFile(change.file, change.content, change.mode);
    if (!nginxRuns) return;
    const test = await execInNginx(stack, ["nginx", "-t", "-q", "-c", CONFIGURATION]);
    if (test.exitCode === 0) return;
    for (const { before: content, ...change } of changes) {
      if (content === undefined) await rm(change.file);
      else await replaceFile(change.file, content, change.mode);
    }
    throw refused(stack, test.stderr.trim());
  };
  const commands = changes.map(({ file }) => `write ${file}`);
  await stack.step("write the settings of nginx", act, commands);
}

/** nginx refuses what it is to read, seen before anything was started. */
export const refused = ({ settings }: Stack, details: string): ConfigurationError =>
  new ConfigurationError("nginx does not take its configuration", {
    details,
    next: `See what nginx says with: ${settings.dockerCmd} exec ${settings.nginxContainer} nginx -t -c ${CONFIGURATION}
Fix it, then run this again; the serving color was not touched.`,
  });
