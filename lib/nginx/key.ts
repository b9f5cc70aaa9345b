import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { GeneratedFile } from "./generated-file.ts";

/** The header that carries the key. nginx removes it before the API sees it, and does not log it. */
const HEADER = "x-loop-key";

type Place = Pick<Settings, "nginxFolder">;

const pathOf = ({ nginxFolder }: Place): string => join(nginxFolder, "probe-key.conf");

/** The key in nginx's configuration: an entry of a map. */
const ENTRY = /^([0-9a-f]{32}) 1;$/m;

/** The headers that open `/_loop/`; none when there is no key, or this user cannot read it. Never throws. */
export async function keyHeaders(settings: Place): Promise<Record<string, string>> {
  const text = await readFile(pathOf(settings), "utf8").catch(() => "");
  const key = text.match(ENTRY)?.[1];
  return key === undefined ? {} : { [HEADER]: key };
}

/** `nginx/probe-key.conf` with a new key; undefined when this user can read an existing one. Never throws. */
export async function newKeyFile(settings: Place): Promise<GeneratedFile | undefined> {
  if (HEADER in (await keyHeaders(settings))) return undefined;
  const what =
    "# Requests with this X-Loop-Key may use /_loop/. If this file is missing, the next run writes a new key.";
  const key = randomBytes(16).toString("hex"); // nginx's default map_hash_bucket_size allows no longer key
  return { file: pathOf(settings), content: `${what}\n${key} 1;\n`, mode: 0o600 };
}
