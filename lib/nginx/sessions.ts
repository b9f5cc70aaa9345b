import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { COLORS, type Color } from "../color.ts";
import { inspectColors } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import type { Context } from "../run/context.ts";
import { replaceFile } from "../util/atomic.ts";
import type { OtherGets } from "./link.ts";
import { CONNECTIONS, connectionsTo } from "./open-requests.ts";
import { shellInNginx } from "./shell.ts";

/**
 * The logs of sessions, in memory in nginx's container: a line "seconds color label" for each session that an API created,
 * and for each request of a kept color's session.
 */
const [CREATED, USED] = ["/tmp/sessions-created.log", "/tmp/sessions-used.log"];

/** The clocks of a VM and of its host may differ by this much. */
const CLOCK_MS = 60_000;

/** After a start of the host, or of all containers, nginx may start this much later than a color. */
const TOGETHER_MS = 30_000;

/** Above this size, runs shorten them; the memory has 16 MB. */
const LOG_BYTES = 1_000_000;

/** The tag that nginx adds to the ids of the sessions that a container creates: eight hexadecimal digits. */
export const tagOf = (containerId: string): string =>
  createHash("sha256").update(containerId).digest("hex").slice(0, 8);

/** The tags of each color. The first is that of its container. */
type Tags = Readonly<Record<Color, readonly string[]>>;

/** The content of `nginx/sessions.conf`. */
export function renderTags(tags: Tags): string {
  const tagged = COLORS.flatMap((color) => tags[color].map((tag) => `${tag} ${color}; `));
  const own = COLORS.flatMap((color) => tags[color].slice(0, 1).map((tag) => `${color} ${tag}; `));
  return [
    "# Written by each run before a switch; manual changes are overwritten.",
    `map $session_tag $tagged_color { default ""; ${tagged.join("")}}`,
    `map $loop_color $color_tag { default ""; ${own.join("")}}`,
    "",
  ].join("\n");
}

/**
 * The tags for the next reload: that of each color's container, and the one that nginx has used for the color so far. If the
 * owner has recreated the container since the last switch, its sessions have that one.
 */
export function nextTags(written: string, ids: Readonly<Record<Color, string>>): Tags {
  const tagsOf = (color: Color): string[] => {
    const before = written.match(new RegExp(`${color} ([0-9a-f]{8});`))?.[1];
    const tags = [...(ids[color] ? [tagOf(ids[color])] : []), ...(before ? [before] : [])];
    return [...new Set(tags)];
  };
  return { blue: tagsOf("blue"), green: tagsOf("green") };
}

const NO_TAGS: Tags = { blue: [], green: [] };

/**
 * Writes the tags of both colors for the next reload of nginx; none with SESSION_SECONDS=0, except for a canary: until it is
 * active, only tags lead its sessions to it. Throws DockerError, and what the file system throws.
 */
export async function writeTags(context: Context, otherGets: OtherGets): Promise<void> {
  const { settings } = context;
  const file = join(settings.nginxFolder, "sessions.conf");
  const written = await readFile(file, "utf8").catch(() => "");
  const { blue, green } = await inspectColors(context);
  const tags =
    settings.sessionSeconds === 0 && otherGets !== "canary"
      ? NO_TAGS
      : nextTags(written, { blue: blue.id, green: green.id });
  const content = renderTags(tags);
  if (written !== content) await replaceFile(file, content);
}

/** What nginx knows of a color's sessions. */
export interface SessionUse {
  /** It has created a session since it was started, or this cannot be excluded. */
  created: boolean;
  /**
   * The last known request of one of its sessions while it was kept, in ms since 1970, or the start of nginx, before which
   * nothing is known.
   */
  usedMs: number;
  /** How many different sessions were used recently, at least. */
  inUse: number;
  /** The open connections to it. While it is kept, and idle for more than a second, each one is a request. */
  open: number;
}

const lastOf = (color: Color, file: string): string => `$(grep -s ' ${color} ' ${file} | tail -n 1)`;

const shorten = (file: string, keep: string): string =>
  `if [ -e ${file} ] && [ "$(wc -c < ${file})" -gt ${LOG_BYTES} ]; then keep="${keep}"; echo "$keep" > ${file}; fi`;

/** Shortens the logs when they are long: the last creation of each color and the last uses stay. */
const SHORTEN = [
  shorten(CREATED, COLORS.map((color) => lastOf(color, CREATED)).join("\n")),
  shorten(USED, `$(tail -n 1000 ${USED})`),
].join("\n");

/** Shortens the logs of sessions when they are long. Throws DockerError. */
export const shortenSessionLogs = async (context: Context): Promise<void> =>
  void (await shellInNginx(context, SHORTEN));

/** Prints the last creation and the uses of a color's sessions, then nginx's connections. */
const lookInside = (color: Color): string => `
echo "${lastOf(color, CREATED)}"
grep -s ' ${color} ' ${USED} | tail -n 20000
echo --
cat ${CONNECTIONS}`;

/** When nginx and the color were last started, from when on a use counts as recent, and now, in ms since 1970. */
interface Times {
  startedMs: number;
  nginxStartedMs: number;
  recentMs: number;
  nowMs: number;
}

/** Parses the logs: the line of the last creation, which may be empty, then one line for each use. */
export function parseLogs(
  text: string,
  { startedMs, nginxStartedMs, recentMs, nowMs }: Times,
): Omit<SessionUse, "open"> {
  const [created, ...uses] = text.split("\n").map((line) => parseLine(line, nowMs));
  const used = uses.filter((use) => use !== undefined);
  return {
    // nginx's memory of them begins with its own start. If both were started together, there were none before.
    created: (created !== undefined && created.ms >= startedMs) || nginxStartedMs > startedMs + TOGETHER_MS,
    usedMs: Math.max(used.at(-1)?.ms ?? 0, nginxStartedMs),
    inUse: new Set(used.filter(({ ms }) => ms > recentMs).map(({ label }) => label)).size,
  };
}

/** A line that is being written, or that something else wrote into the log, is skipped. */
function parseLine(line: string, nowMs: number): { ms: number; label: string } | undefined {
  const [, seconds, label] = line.match(/^(\d{1,12}\.\d{3}) (?:blue|green) (\S+)$/) ?? [];
  const ms = Number(seconds) * 1000;
  return label && ms <= nowMs + CLOCK_MS ? { ms, label } : undefined;
}

/**
 * Reads what nginx knows of a color's sessions; `keptMs` is when it became the kept color, in ms since 1970. Throws
 * DockerError.
 */
export const readSessionUse = (context: Context, color: Color, keptMs = 0): Promise<SessionUse> =>
  readUse(context, color, lookInside(color), keptMs);

/** Shortens the logs, then reads the same. One command, because each `docker exec` takes time. Throws DockerError. */
export const shortenAndReadUse = (context: Context, color: Color): Promise<SessionUse> =>
  readUse(context, color, `${SHORTEN}${lookInside(color)}`, 0);

async function readUse(context: Context, color: Color, look: string, keptMs: number): Promise<SessionUse> {
  const { settings } = context;
  const seen = await engineOf(context).inspectColors(context, { nginx: settings.nginxContainer });
  const { [color]: container, nginx } = seen;
  const [logs = "", table = ""] = (await shellInNginx(context, look)).split(/^--$/m);
  const nowMs = Date.now();
  const recentMs = Math.max(keptMs, nowMs - settings.sessionIdleSeconds * 1000);
  const times = { startedMs: container.startedMs, nginxStartedMs: nginx.startedMs, recentMs, nowMs };
  return { ...parseLogs(logs, times), open: connectionsTo(container.addresses, container.api.port, table) };
}
