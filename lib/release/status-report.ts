import { type Apis, hasAuth } from "../api.ts";
import { COLORS, type Color } from "../color.ts";
import { Entry } from "../run/history.ts";
import type { Settings } from "../settings.ts";
import { type Infer, z } from "../util/zod.ts";
import type { KeptSessions } from "./sessions.ts";

/** The status of a color. */
export const ColorStatus = z.object({
  /** running, paused, exited, created, restarting, dead, or absent; unknown when Docker does not answer. */
  container: z.string(),
  /** Its host port; null in a swarm. */
  port: z.number().nullable(),
  /** Its replicas in a swarm, each with its node; null for a container. */
  replicas: z.array(z.object({ node: z.string(), state: z.string(), error: z.string() })).nullable(),
  /** The image id of the container, or else of the color's tag. */
  image: z.string().nullable(),
  /** Where the image was pulled from, with its digest; null if it was built here. */
  source: z.string().nullable(),
  /** ISO 8601. */
  built: z.string().nullable(),
  /** The commit that it was built from. */
  revision: z.string().nullable(),
  /** It belongs to a failed release: a rollback recreates it from the last good build. */
  failed: z.boolean(),
  /** The result of its health check on its own port, in a swarm that of each replica through nginx: "healthy", or what is wrong; null when it does not run. */
  health: z.string().nullable(),
});
export type ColorStatus = Infer<typeof ColorStatus>;

/** What `scripts/status.mts --json` prints. */
export const Status = z.object({
  project: z.string(),
  /** The color of a healthy response through nginx; null when there was none. */
  serving: z.enum(COLORS).nullable(),
  colors: z.object({ blue: ColorStatus, green: ColorStatus }),
  nginx: z.string(),
  auth: z.string(),
  /** The color that the active link points at, or its raw target; null when there is none, or it cannot be read. */
  link: z.string().nullable(),
  /** The color in the state file; null when there is none, or it cannot be read. */
  stateFile: z.enum(COLORS).nullable(),
  /** The run in progress (`held`), or one that left something to repair; null if no run is in progress and nothing is left to repair. */
  run: z.object({ held: z.boolean(), verb: z.string(), pid: z.number(), since: z.string() }).nullable(),
  /** The color that still serves its own sessions after a switch to the other one; null when there is none. Times are ISO 8601. */
  sessions: z
    .object({
      color: z.enum(COLORS),
      lastUsed: z.string(),
      inUse: z.number(),
      openRequests: z.number(),
      until: z.string(),
    })
    .nullable(),
  /** The new color that gets this percentage of the new requests before a switch; null when there is none. */
  canary: z.object({ color: z.enum(COLORS), percent: z.number().nullable() }).nullable(),
  /** What disagrees or is missing, in words. The next release repairs what it can. */
  drift: z.array(z.string()),
  /** Free bytes where Docker keeps its data; null when unknown. */
  freeBytes: z.number().nullable(),
  /** The last runs, newest first. */
  runs: z.array(Entry),
});
export type Status = Infer<typeof Status>;

/** The state of auth as it is reported: off, if neither a color nor the next release needs it, and it does not exist. */
export const authState = <T extends string>({ api }: Settings, apis: Apis, status: T): T | "off" =>
  status === "absent" && api.auth === "off" && !hasAuth(apis) ? "off" : status;

/** The message for a canary that no run watches. */
export const leftCanary = (color: Color): string =>
  `${color} is still a canary, but no run is watching it. To end the canary, run a rollback or a release`;

/** The state of a kept color's sessions, as it is reported. */
export const sessionsOf = ({
  color,
  usedMs,
  inUse,
  open,
  untilMs,
}: KeptSessions): NonNullable<Status["sessions"]> => ({
  color,
  lastUsed: new Date(usedMs).toISOString(),
  inUse,
  openRequests: open,
  until: new Date(untilMs).toISOString(),
});

/** The time of day, local. */
export const clock = (ms: number): string => new Date(ms).toTimeString().slice(0, 5);
