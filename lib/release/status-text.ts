import { COLORS, type Color } from "../color.ts";
import type { Entry } from "../run/history.ts";
import { shortRevision } from "./revision.ts";
import { clock, type Status } from "./status.ts";

const openNow = (requests: number): string =>
  requests === 0 ? "" : `, ${requests} open ${requests === 1 ? "request" : "requests"}`;

const minute = (iso: string): string => iso.slice(0, 16).replace("T", " ");

const NEXT = "  next: a release or a rollback repairs what it can; see docs/when-something-goes-wrong.md";

/** The same as one screen of text. */
export function describeStatus(status: Status): string {
  const { project, serving, colors, nginx, auth, run, sessions, canary, drift, freeBytes, runs } = status;
  const color = (name: Color): string => {
    const { container, port, image, built, revision, failed, health } = colors[name];
    return [
      `  ${name.padEnd(6)} ${container.padEnd(9)} port ${port}`,
      ...(image ? [`image ${image.replace("sha256:", "").slice(0, 12)}`] : []),
      ...(built ? [`built ${minute(built)}`] : []),
      ...(revision ? [`revision ${shortRevision(revision)}`] : []),
      ...(failed ? ["failed release"] : []),
      ...(health ? [health] : []),
    ].join(" · ");
  };
  const free = freeBytes === null ? "free space unknown" : `${(freeBytes / 2 ** 30).toFixed(1)} GiB free`;
  const working = run?.held
    ? `a ${run.verb} is in progress (pid ${run.pid}, since ${run.since})`
    : "no run in progress";
  const line = ({ time, verb, from, to, result, seconds, cut }: Entry): string =>
    `  ${minute(time)}  ${verb.padEnd(8)}  ${`${from ?? "?"} → ${to ?? "?"}`.padEnd(13)}  ${result.padEnd(12)}${seconds === undefined ? "" : `  ${seconds.toFixed(1)} s`}${cut ? `  ${cut} interrupted` : ""}`;
  return [
    serving ? `${project}: ${serving} serves, seen through nginx` : `${project}: neither color serves`,
    "",
    ...COLORS.map(color),
    ...(canary ? [`  ${canary.color} is a canary: it gets ${canary.percent} % of the new requests`] : []),
    ...(sessions
      ? [
          `  ${sessions.color} still serves its sessions: last used ${Math.max(0, Math.round((Date.now() - Date.parse(sessions.lastUsed)) / 1000))} s ago${openNow(sessions.openRequests)}, until ${clock(Date.parse(sessions.until))} at the latest`,
        ]
      : []),
    `  nginx ${nginx} · auth ${auth} · ${working} · ${free}`,
    "",
    ...(drift.length > 0
      ? [...drift.map((text) => `  ! ${text}`), NEXT]
      : [run?.held ? "  not checked while a run is in progress" : "  everything agrees"]),
    "",
    ...(runs.length > 0 ? ["last runs (UTC)", ...runs.map(line)] : ["no earlier runs"]),
  ].join("\n");
}
