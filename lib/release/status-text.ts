import { COLORS, type Color } from "../color.ts";
import { type Entry, stands } from "../run/history.ts";
import { describeSource } from "./pull.ts";
import { shortRevision } from "./revision.ts";
import { type ColorStatus, clock, type Status } from "./status-report.ts";

/** The responses to clients during the canary and verification of the new color, if any were counted. */
const trafficOf = ({ traffic }: Entry): string =>
  traffic ? `  ${traffic.after.responses} responses, ${traffic.after.errors} with 5xx` : "";

/** One run: when, what, from where to where, how it ended. */
export function describeRun(run: Entry): string {
  const { time, verb, from, to, result, seconds, cut } = run;
  const took = seconds === undefined ? "" : `  ${seconds.toFixed(1)} s`;
  const interrupted = cut ? `  ${cut} interrupted` : "";
  const colors = from || to ? `${from ?? "?"} → ${to ?? "?"}` : ""; // a run can end before it knows them
  return `${minute(time)}  ${verb.padEnd(8)}  ${colors.padEnd(13)}  ${result.padEnd(12)}${took}${trafficOf(run)}${interrupted}`;
}

/** The sessions that the kept color still serves. */
export function describeSessions(
  { color, lastUsed, openRequests, until }: NonNullable<Status["sessions"]>,
  nowMs = Date.now(),
): string {
  const ago = Math.max(0, Math.round((nowMs - Date.parse(lastUsed)) / 1000));
  return `${color} still serves its sessions: last used ${ago} s ago${openNow(openRequests)}, until ${clock(Date.parse(until))} at the latest`;
}

const openNow = (requests: number): string =>
  requests === 0 ? "" : `, ${requests} open ${requests === 1 ? "request" : "requests"}`;

/** The replicas of a color: how many run, and on which nodes; the first problem. */
function describeReplicas(replicas: NonNullable<ColorStatus["replicas"]>): string {
  if (replicas.length === 0) return "no replicas";
  const running = replicas.filter(({ state }) => state === "running");
  const nodes = [...new Set(running.map(({ node }) => node))].sort();
  const places = nodes.map((name) => {
    const { length } = running.filter(({ node }) => node === name);
    return length > 1 ? `${name} (${length})` : name;
  });
  const [failed] = replicas.filter(({ error }) => error !== "");
  return [
    `${running.length} of ${replicas.length} replicas${places.length > 0 ? ` on ${places.join(", ")}` : ""}`,
    ...(failed ? [`${failed.node || "no node"}: ${failed.error}`] : []),
  ].join("; ");
}

const minute = (iso: string): string => iso.slice(0, 16).replace("T", " ");

const [FIRST, REPAIR] = [
  "  next: run the first release: npx tsx scripts/deploy-blue-green.mts",
  "  next: a release repairs what it can; a rollback repairs only what needs no build; see docs/when-something-goes-wrong.md",
];

/** The same as one screen of text. */
export function describeStatus(status: Status): string {
  const { project, serving, colors, nginx, auth, run, sessions, canary, drift, freeBytes, runs } = status;
  const color = (name: Color): string => {
    const { container, port, replicas, image, source, built, revision, failed, health } = colors[name];
    return [
      `  ${name.padEnd(6)} ${container.padEnd(9)} ${replicas ? describeReplicas(replicas) : port === null ? "no replicas" : `port ${port}`}`,
      ...(source
        ? [describeSource(source)]
        : image
          ? [`image ${image.replace("sha256:", "").slice(0, 12)}`]
          : []),
      ...(built ? [`built ${minute(built)}`] : []),
      ...(revision ? [`revision ${shortRevision(revision)}`] : []),
      ...(failed ? ["failed release"] : []),
      ...(health ? [health] : []),
    ].join(" · ");
  };
  const { link, stateFile } = status;
  const isAbsent = (name: Color) => colors[name].container === "absent" && colors[name].image === null;
  const isNew = !link && !stateFile && !runs.some(stands) && COLORS.every(isAbsent);
  const state = isNew ? "not released yet" : "neither color serves";
  const free = freeBytes === null ? "free space unknown" : `${(freeBytes / 2 ** 30).toFixed(1)} GiB free`;
  const working = run?.held
    ? `a ${run.verb} is in progress (pid ${run.pid}, since ${run.since})`
    : "no run in progress";
  return [
    serving ? `${project}: ${serving} serves, seen through nginx` : `${project}: ${state}`,
    "",
    ...COLORS.map(color),
    ...(canary
      ? [
          `  ${canary.color} is a canary: it gets ${canary.percent === null ? "a share" : `${canary.percent} %`} of the new requests`,
        ]
      : []),
    ...(sessions ? [`  ${describeSessions(sessions)}`] : []),
    `  nginx ${nginx} · auth ${auth} · ${working} · ${free}`,
    "",
    ...(drift.length > 0
      ? [...drift.map((text) => `  ! ${text}`), ...(run?.held ? [] : [isNew ? FIRST : REPAIR])]
      : [run?.held ? "  not checked while a run is in progress" : "  everything agrees"]),
    "",
    ...(runs.length > 0
      ? ["last runs (UTC)", ...runs.map((run) => `  ${describeRun(run)}`)]
      : ["no earlier runs"]),
  ].join("\n");
}
