import { decide, type Seen } from "./active.ts";
import { freeSpace } from "./build.ts";
import { COLORS, type Color, isColor, readMarked, readStateFile } from "./color.ts";
import { colorStates, inspectColor } from "./docker/container.ts";
import { inspectFrontDoor } from "./docker/frontdoor.ts";
import { inspectImage, taggedImage } from "./docker/image.ts";
import { probeHealth } from "./health.ts";
import { Entry, readHistory } from "./history.ts";
import { howItEnded, readLock } from "./lock.ts";
import { askFrontDoor } from "./nginx/frontdoor.ts";
import { readLink } from "./nginx/link.ts";
import { getHostPort, isFolder } from "./settings.ts";
import type { Stack } from "./stack.ts";
import { vaultLoss } from "./vault.ts";
import { type Infer, z } from "./zod.ts";

const RUNS_SHOWN = 5;

const ColorStatus = z.object({
  /** running, paused, exited, created, restarting, dead, or absent; unknown when Docker does not answer. */
  container: z.string(),
  port: z.number(),
  /** The image id of the container, else of the color's tag. */
  image: z.string().nullable(),
  /** ISO 8601. */
  built: z.string().nullable(),
  /** The commit it was built from. */
  revision: z.string().nullable(),
  /** It is of a release that failed: a rollback makes a new one, from the last good build. */
  failed: z.boolean(),
  /** What its /health on its own port gave just now: "healthy", or what was wrong; null when it does not run. */
  health: z.string().nullable(),
});

/** What `scripts/status.mts --json` prints. */
export const Status = z.object({
  project: z.string(),
  /** The color of a healthy answer through nginx, just now; null when there was none. */
  serving: z.enum(COLORS).nullable(),
  colors: z.object({ blue: ColorStatus, green: ColorStatus }),
  nginx: z.string(),
  auth: z.string(),
  /** Where the active link points: a color, else its target as it stands; null when there is none, or it cannot be read. */
  link: z.string().nullable(),
  /** What the state file says; null when there is none, or it cannot be read. */
  stateFile: z.enum(COLORS).nullable(),
  /** Whether a run works on the stack now, or one left something to put right, and which; null after one that came to its end. */
  run: z.object({ held: z.boolean(), verb: z.string(), pid: z.number(), since: z.string() }).nullable(),
  /** What disagrees or is away, in words; the next run puts right what it can. */
  drift: z.array(z.string()),
  /** Free space where Docker keeps its data, in bytes; null when it cannot be seen. */
  freeBytes: z.number().nullable(),
  /** The last runs, newest first. */
  runs: z.array(Entry),
});
export type Status = Infer<typeof Status>;

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function colorStatus(stack: Stack, color: Color): Promise<Infer<typeof ColorStatus>> {
  const port = getHostPort(stack.settings, color);
  const asked = probeHealth(`http://127.0.0.1:${port}/health`, 1);
  try {
    const { status, image: id, discarded } = await inspectColor(stack, color);
    const image = await (id ? inspectImage(stack, id) : taggedImage(stack, color));
    const { healthy, finding } = await asked;
    return {
      container: status,
      port,
      image: image?.id ?? null,
      built: image?.built ?? null,
      revision: image?.revision ?? null,
      failed: discarded,
      health: status === "running" ? (healthy ? "healthy" : finding) : null,
    };
  } catch {
    await asked;
    return {
      container: "unknown",
      port,
      image: null,
      built: null,
      revision: null,
      failed: false,
      health: null,
    };
  }
}

/** The places that can disagree with what nginx serves, and what of them cannot be seen; each look may fail by itself. */
async function lookAtPlaces(
  stack: Stack,
): Promise<Omit<Partial<Seen>, "nginx"> & { published: Color | undefined; problems: readonly string[] }> {
  const { settings } = stack;
  const { vaultPath } = settings;
  const lost = isFolder(vaultPath)
    ? (await vaultLoss(settings))?.finding
    : `the vault ${vaultPath} is not there`;
  const problems = lost ? [lost] : [];
  const attempt = async <T>(look: Promise<T>): Promise<T | undefined> => {
    try {
      return await look;
    } catch (error) {
      problems.push(messageOf(error));
      return undefined;
    }
  };
  const [link, file, published, containers] = await Promise.all([
    attempt(readLink(stack)),
    attempt(readMarked(settings)),
    attempt(readStateFile(settings)),
    attempt(colorStates(stack)),
  ]);
  return { link, file, published, problems, ...(containers ? { containers } : {}) };
}

/** What says otherwise than nginx does, while no run is changing it. */
function disagreements(seen: Seen, published: Color | undefined): string[] {
  const { nginx, link, file } = seen;
  const { bothRun, wrong } = decide(seen);
  const marked = file !== published && wrong.includes("file");
  return [
    ...(bothRun ? ["both colors run"] : []),
    ...(wrong.includes("link")
      ? [`the active link points at ${link ?? "nothing"}, nginx serves ${nginx}`]
      : []),
    ...(marked ? [`${file ?? "nothing"} was marked as active, nginx serves ${nginx}`] : []),
    ...(nginx && published !== nginx
      ? [`the state file says ${published ?? "nothing"}, nginx serves ${nginx}`]
      : []),
  ];
}

/** Looks at everything, changes nothing, and fails at nothing: what cannot be seen is said to be unknown. */
export async function readStatus(stack: Stack): Promise<Status> {
  const { settings } = stack;
  const lock = await readLock(settings.lockFile);
  const [answer, places, blue, green, front, space, runs] = await Promise.all([
    askFrontDoor(settings),
    lookAtPlaces(stack),
    colorStatus(stack, "blue"),
    colorStatus(stack, "green"),
    inspectFrontDoor(stack).catch(() => undefined),
    freeSpace(stack).catch(() => undefined),
    readHistory(settings.historyFile),
  ]);
  const serving = answer.healthy && isColor(answer.color) ? answer.color : undefined;
  const { link, file, published, containers } = places;
  const drift = [
    ...places.problems,
    ...(serving ? [] : [`no healthy answer through nginx: ${answer.finding}`]),
    ...(containers && !lock?.held
      ? disagreements({ nginx: serving, containers, link, file }, published)
      : []),
  ];
  const { container, health } = serving ? { blue, green }[serving] : {};
  if (container === "running" && health !== "healthy")
    drift.push(`${serving} serves, but does not answer well on its own port: ${health}`);
  for (const [name, container] of Object.entries(front ?? {}))
    if (container.status !== "running") drift.push(`${name} is ${container.status}`);
  if (lock?.note && !lock.held) drift.push(howItEnded(lock.note));
  return {
    project: settings.project,
    serving: serving ?? null,
    colors: { blue, green },
    nginx: front?.nginx.status ?? "unknown",
    auth: front?.auth.status ?? "unknown",
    link: link ?? null,
    stateFile: published ?? null,
    run: lock?.note
      ? { held: lock.held, verb: lock.note.verb, pid: lock.note.pid, since: lock.note.since }
      : null,
    drift,
    freeBytes: space?.bytes ?? null,
    runs: runs.slice(-RUNS_SHOWN).reverse(),
  };
}

const minute = (iso: string): string => iso.slice(0, 16).replace("T", " ");

const NEXT =
  "  next: a release or a rollback puts right what it can; docs/when-something-goes-wrong.md has more";

/** The same for people, on one screen. */
export function describeStatus(status: Status): string {
  const { project, serving, colors, nginx, auth, run, drift, freeBytes, runs } = status;
  const color = (name: Color): string => {
    const { container, port, image, built, revision, failed, health } = colors[name];
    return [
      `  ${name.padEnd(6)} ${container.padEnd(9)} port ${port}`,
      ...(image ? [`image ${image.replace("sha256:", "").slice(0, 12)}`] : []),
      ...(built ? [`built ${minute(built)}`] : []),
      ...(revision ? [`of ${revision.slice(0, 10)}${revision.endsWith("-dirty") ? "-dirty" : ""}`] : []),
      ...(failed ? ["of a release that failed"] : []),
      ...(health ? [health] : []),
    ].join(" · ");
  };
  const free = freeBytes === null ? "free space unknown" : `${(freeBytes / 2 ** 30).toFixed(1)} GiB free`;
  const working = run?.held
    ? `a ${run.verb} works on it (pid ${run.pid}, since ${run.since})`
    : "no run seen at work";
  const line = ({ time, verb, from, to, result, seconds, cut }: Entry): string =>
    `  ${minute(time)}  ${verb.padEnd(8)}  ${`${from ?? "?"} → ${to ?? "?"}`.padEnd(13)}  ${result.padEnd(12)}${seconds === undefined ? "" : `  ${seconds.toFixed(1)} s`}${cut ? `  ${cut} cut` : ""}`;
  return [
    serving ? `${project}: ${serving} serves, seen through nginx` : `${project}: nothing was seen to serve`,
    "",
    ...COLORS.map(color),
    `  nginx ${nginx} · auth ${auth} · ${working} · ${free}`,
    "",
    ...(drift.length > 0
      ? [...drift.map((text) => `  ! ${text}`), NEXT]
      : [run?.held ? "  not compared" : "  all agree"]),
    "",
    ...(runs.length > 0 ? ["last runs (UTC)", ...runs.map(line)] : ["no earlier runs seen"]),
  ].join("\n");
}
