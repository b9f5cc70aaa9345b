import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Settings } from "../settings.ts";
import type { Written } from "./written.ts";

/** The header that carries the key. nginx keeps it from the API, and its log has no headers. */
const HEADER = "x-loop-key";

type Place = Pick<Settings, "nginxFolder">;

const pathOf = ({ nginxFolder }: Place): string => join(nginxFolder, "probe-key.conf");

/** The key as nginx has it, an entry of a map. */
const ENTRY = /^([0-9a-f]{32}) 1;$/m;

/** The headers that nginx answers below `/_loop/` to; none where there is no key, or this user may not read it. Never throws. */
export async function keyHeaders(settings: Place): Promise<Record<string, string>> {
  const text = await readFile(pathOf(settings), "utf8").catch(() => "");
  const key = text.match(ENTRY)?.[1];
  return key === undefined ? {} : { [HEADER]: key };
}

/** `nginx/probe-key.conf` with a new key; undefined where there is one that this user may read. Never throws. */
export async function newKeyFile(settings: Place): Promise<Written | undefined> {
  if (HEADER in (await keyHeaders(settings))) return undefined;
  const what =
    "# Who sends this as X-Loop-Key may ask below /_loop/. Where this file is gone, the next run makes another.";
  const key = randomBytes(16).toString("hex"); // nginx's maps take no longer name unless they are told to
  return { file: pathOf(settings), content: `${what}\n${key} 1;\n`, mode: 0o600 };
}
