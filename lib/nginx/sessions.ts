import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { COLORS, type Color } from "../color.ts";
import { inspectAll, inspectColor } from "../docker/container.ts";
import { containerOf } from "../docker/names.ts";
import { inspectNginx } from "../docker/services.ts";
import type { Context } from "../run/context.ts";
import { replaceFile } from "../util/atomic.ts";
import { CONNECTIONS, connectionsTo } from "./open-requests.ts";
import { shellInNginx } from "./shell.ts";

/**
 * The logs of sessions, in memory in nginx's container: a line "seconds color label" for each session that an API created,
 * and for each request of a kept color's session.
 */
const [CREATED, USED] = ["/tmp/sessions-created.log", "/tmp/sessions-used.log"];

/** Above this size, runs shorten them; the memory has 16 MB. */
const LOG_BYTES = 1_000_000;

/** The tag that nginx adds to the ids of the sessions that a container creates: eight hexadecimal digits. */
export const tagOf = (containerId: string): string =>
  createHash("sha256").update(containerId).digest("hex").slice(0, 8);

/** The content of `nginx/sessions.conf`, from the container ids of the colors that have a container. */
export function renderTags(ids: Readonly<Partial<Record<Color, string>>>): string {
  const tags = COLORS.flatMap((color) => (ids[color] ? [[color, tagOf(ids[color])] as const] : []));
  return [
    "# Written by each run before a switch; manual changes are overwritten.",
    'map $session_tag $tagged_color { default ""; ' +
      `${tags.map(([color, tag]) => `${tag} ${color}; `).join("")}}`,
    'map $loop_color $color_tag { default ""; ' +
      `${tags.map(([color, tag]) => `${color} ${tag}; `).join("")}}`,
    "",
  ].join("\n");
}

/** Writes the tags of both colors for the next reload of nginx. Throws DockerError, and what the file system throws. */
export async function writeTags(context: Context): Promise<void> {
  const { settings } = context;
  const { blue, green } = await inspectAll(context, {
    blue: containerOf(settings, "blue"),
    green: containerOf(settings, "green"),
  });
  const file = join(settings.nginxFolder, "sessions.conf");
  const content = renderTags({ blue: blue.id, green: green.id });
  if ((await readFile(file, "utf8").catch(() => "")) !== content) await replaceFile(file, content);
}

/** What nginx knows of a color's sessions. */
export interface SessionUse {
  /** It has created a session since it was started, or this cannot be excluded. */
  created: boolean;
  /** The last request of one of its sessions since it became the kept color, in ms since 1970; undefined when there was none. */
  usedMs: number | undefined;
  /** How many different sessions were used in the last SESSION_IDLE_SECONDS. */
  inUse: number;
  /** The open connections to it. While it is kept, and idle for more than a second, each one is a request. */
  open: number;
}

const lastOf = (color: Color, file: string): string => `$(grep -s ' ${color} ' ${file} | tail -n 1)`;

const shorten = (file: string, keep: string): string =>
  `if [ -e ${file} ] && [ "$(wc -c < ${file})" -gt ${LOG_BYTES} ]; then keep="${keep}"; echo "$keep" > ${file}; fi`;

/** Prints the last creation and the uses of a color's sessions, then nginx's connections. Keeps the logs short. */
const lookInside = (color: Color): string => `
echo "${lastOf(color, CREATED)}"
grep -s ' ${color} ' ${USED} | tail -n 20000
echo --
cat ${CONNECTIONS}
${shorten(CREATED, COLORS.map((each) => lastOf(each, CREATED)).join("\n"))}
${shorten(USED, `$(tail -n 100 ${USED})`)}`;

/** When nginx and the color were last started, and from when on a use counts as recent, in ms since 1970. */
interface Times {
  startedMs: number;
  nginxStartedMs: number;
  recentMs: number;
}

/** Parses the logs: the line of the last creation, which may be empty, then one line for each use. */
export function parseLogs(
  text: string,
  { startedMs, nginxStartedMs, recentMs }: Times,
): Omit<SessionUse, "open"> {
  const [created, ...uses] = text.split("\n").map(parseLine);
  const used = uses.filter((use) => use !== undefined);
  return {
    // nginx's memory of them begins with its own start.
    created: (created !== undefined && created.ms >= startedMs) || nginxStartedMs > startedMs,
    usedMs: used.at(-1)?.ms,
    inUse: new Set(used.filter(({ ms }) => ms > recentMs).map(({ label }) => label)).size,
  };
}

function parseLine(line: string): { ms: number; label: string } | undefined {
  const [seconds, , label] = line.split(" ");
  return seconds && label ? { ms: Number(seconds) * 1000, label } : undefined;
}

/**
 * Reads what nginx knows of a color's sessions; `keptMs` is when it became the kept color, in ms since 1970. Throws
 * DockerError.
 */
export async function readSessionUse(context: Context, color: Color, keptMs = 0): Promise<SessionUse> {
  const [{ startedMs, addresses }, nginx] = await Promise.all([
    inspectColor(context, color),
    inspectNginx(context),
  ]);
  const [logs = "", table = ""] = (await shellInNginx(context, lookInside(color))).split("--\n");
  const recentMs = Math.max(keptMs, Date.now() - context.settings.sessionIdleSeconds * 1000);
  const times = { startedMs, nginxStartedMs: nginx.startedMs, recentMs };
  return { ...parseLogs(logs, times), open: connectionsTo(addresses, table) };
}
