import { visible } from "../util/visible.ts";
import { describeSource } from "./pull.ts";
import type { Release } from "./releases.ts";
import { shortRevision } from "./revision.ts";

const [MINUTE, HOUR, DAY] = [60_000, 3_600_000, 86_400_000];

/** A duration in its two largest units, such as 2 d 4 h. */
export function duration(ms: number): string {
  const [days, hours] = [Math.floor(ms / DAY), Math.floor((ms % DAY) / HOUR)];
  const minutes = Math.floor((ms % HOUR) / MINUTE);
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min`;
}

/** A size in Docker's unit: 1 MB is a million bytes. */
const size = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

const HEADINGS = ["release", "served since (UTC)", "served for", "image", "revision", "size", ""];

function row({ release, image, source, served, color, serves }: Release): string[] {
  return [
    String(release),
    served ? new Date(served.sinceMs).toISOString().slice(0, 16).replace("T", " ") : "unknown",
    served ? duration(served.ms) : "unknown",
    source ? describeSource(source) : image.id.slice(0, 19),
    image.revision ? shortRevision(image.revision) : "-",
    size(image.bytes),
    serves ? `${color} serves it` : color ? `on ${color}` : "",
  ];
}

/** The kept releases as a table, and how to go back to one. */
export function describeReleases(releases: readonly Release[]): string {
  if (releases.length === 0)
    return "No release is kept yet: npx tsx scripts/deploy-blue-green.mts makes the first";
  const rows = [HEADINGS, ...releases.map(row)];
  const widths = HEADINGS.map((_, i) => Math.max(...rows.map((cells) => cells[i]?.length ?? 0)));
  const lines = rows.map((cells) =>
    cells
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return [
    ...lines.map(visible),
    "",
    "Roll back to one of them with: npx tsx scripts/rollback.mts --to N",
  ].join("\n");
}
