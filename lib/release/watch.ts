import { setTimeout as sleep } from "node:timers/promises";
import { type Color, isColor } from "../color.ts";
import type { Container } from "../docker/container.ts";
import { authOf } from "../docker/names.ts";
import { apisOf, readApis } from "../engine/apis.ts";
import { engineOf } from "../engine/engine.ts";
import { ToolError } from "../errors.ts";
import { probeLoadedColor } from "../nginx/probe.ts";
import type { Context } from "../run/context.ts";
import { readStep, type Step } from "../run/current-step.ts";
import { type Entry, readHistory } from "../run/history.ts";
import { readLock } from "../run/lock.ts";
import { howItEnded, type RunRecord } from "../run/record.ts";
import type { Settings } from "../settings.ts";
import { followLogOf } from "./log-follower.ts";
import { type Minute, newRates } from "./rates.ts";
import { type KeptSessions, readKeptSessions } from "./sessions.ts";
import { authState, leftCanary } from "./status-report.ts";

/** Seconds between two looks. The sessions take four docker commands, and are looked at only while a color is kept. */
const [NGINX_SECONDS, RUN_SECONDS, CONTAINERS_SECONDS, SESSIONS_SECONDS] = [1, 1, 3, 10];

/** nginx answers the probe itself. After this many seconds without an answer, it counts as gone. */
const PROBE_SECONDS = 3;

/** Docker has this many seconds to answer before the screen says that it does not. */
const PATIENCE_SECONDS = 10;

/** A run in progress. */
export interface RunNow extends Pick<RunRecord, "verb" | "from" | "to" | "verified"> {
  sinceMs: number;
  /** undefined between two steps, and when the log cannot be read. */
  step: Step | undefined;
}

/** What is seen at one moment. */
export interface Seen {
  project: string;
  nowMs: number;
  /** The color that nginx has loaded as active; undefined when it does not answer. */
  serving: Color | undefined;
  /** The color that nginx keeps for its sessions. */
  kept: Color | undefined;
  /** The color that gets a share of the new requests before the switch. */
  canary: Color | undefined;
  /** Docker's states; "unknown" when Docker does not answer, and "off" for auth that is not needed and does not exist. */
  containers: Readonly<Record<Part, Container["status"] | "unknown" | "off">>;
  traffic: Readonly<Record<Color, Minute>>;
  run: RunNow | undefined;
  sessions: KeptSessions | undefined;
  /** What cannot be seen, or is wrong, in words. */
  problems: readonly string[];
  /** The last run that has ended. */
  last: Entry | undefined;
}

/** The containers of a deployment. */
export type Part = Color | "nginx" | "auth";

export interface Watch {
  /** Resolves after the first answers, and after PROBE_SECONDS at the latest if Docker does not answer. */
  ready: Promise<unknown>;
  look(): Seen;
  /** Stops looking, and ends every command that it has started. */
  stop(): Promise<void>;
}

/** What was found last, and what went wrong instead. */
interface Found extends Pick<Seen, "serving" | "kept" | "canary" | "run" | "sessions" | "last"> {
  containers?: Readonly<Record<Part, Container>>;
  nginxProblem?: string;
  dockerProblem?: string;
  /** What an ended run seems to have left, at the last look. */
  left?: string;
  runProblem?: string;
}

/** What Docker said, or what is wrong with what it said. */
function reasonOf(error: unknown): string {
  if (!(error instanceof ToolError)) return String(error);
  const said = error.details.trim().split("\n").at(-1);
  return said ? `Docker does not answer: ${said}` : error.message;
}

/**
 * Looks at a deployment again and again, and changes nothing. Whatever does not answer is a problem in words, and is asked
 * again. nginx's log is followed by one `docker logs`, which is started again after the container or Docker was.
 */
export function startWatch(readOnly: Context): Watch {
  const end = new AbortController();
  const { signal } = end;
  const { health } = readOnly.settings;
  const settings = { ...readOnly.settings, health: { ...health, timeout: PROBE_SECONDS } };
  const context: Context = { ...readOnly, settings, signal, commandSignal: signal };
  const rates = newRates();
  const follower = followLogOf(context, rates);
  let answeredMs = Date.now();
  let found: Found = {
    serving: undefined,
    kept: undefined,
    canary: undefined,
    run: undefined,
    sessions: undefined,
    last: undefined,
  };
  const learn = (news: Partial<Found>): void => {
    found = { ...found, ...news };
  };

  const lookAtNginx = async (): Promise<void> => {
    const { color, kept, canary, finding } = await probeLoadedColor(settings);
    learn({
      serving: isColor(color) ? color : undefined,
      kept: isColor(kept) ? kept : undefined,
      canary: isColor(canary) ? canary : undefined,
      nginxProblem: isColor(color) ? "" : `nginx does not answer: ${finding}`,
    });
  };
  const lookAtRun = async (): Promise<void> => {
    const lock = await readLock(settings.lockFile);
    const run = lock?.held && lock.record ? await runNow(settings.logFile, lock.record) : undefined;
    const isOther = run?.sinceMs !== found.run?.sinceMs;
    const [last = found.last] =
      !found.last || isOther ? (await readHistory(settings.historyFile)).slice(-1) : [];
    // A run that ends between the two parts of this look seems killed: believe it when it is seen twice.
    const left = lock?.record && !lock.held ? howItEnded(lock.record) : "";
    learn({ run, last, left, runProblem: left === found.left ? left : "" });
  };
  const lookAtContainers = async (): Promise<void> => {
    try {
      const names = { nginx: settings.nginxContainer, auth: authOf(context) };
      const containers = await engineOf(context).inspectColors(context, names);
      learn({ containers, dockerProblem: "" });
      if (!signal.aborted) follower.follow(containers.nginx);
    } catch (error) {
      learn({ dockerProblem: reasonOf(error) });
    }
    answeredMs = Date.now();
  };
  const lookAtSessions = async (): Promise<void> =>
    learn({ sessions: found.kept && (await readKeptSessions(context).catch(() => undefined)) });

  const repeat = (seconds: number, look: () => Promise<void>) => {
    const first = look();
    const all = async (): Promise<void> => {
      for (await first; !signal.aborted; await look())
        await sleep(seconds * 1000, undefined, { signal }).catch(() => undefined);
    };
    return { first, all: all() };
  };
  const nginx = repeat(NGINX_SECONDS, lookAtNginx);
  const run = repeat(RUN_SECONDS, lookAtRun);
  const containers = repeat(CONTAINERS_SECONDS, lookAtContainers);
  const sessions = repeat(SESSIONS_SECONDS, lookAtSessions);
  const patience = sleep(PROBE_SECONDS * 1000, undefined, { signal }).catch(() => undefined);

  return {
    ready: Promise.all([nginx.first, run.first, Promise.race([containers.first, patience])]),
    look: () => {
      const nowMs = Date.now();
      const late = nowMs - answeredMs > PATIENCE_SECONDS * 1000;
      const dockerProblem = late
        ? `Docker has not answered for ${Math.round((nowMs - answeredMs) / 1000)} s`
        : found.dockerProblem;
      const { containers, serving, kept, canary, run, last } = found;
      const states = statesOf(dockerProblem ? undefined : containers, settings);
      return {
        project: settings.project,
        nowMs,
        serving,
        kept,
        canary,
        containers: states,
        traffic: rates.lastMinute(nowMs),
        run,
        sessions: kept && found.sessions?.color === kept ? found.sessions : undefined,
        problems: [
          ...(found.nginxProblem ? [found.nginxProblem] : []),
          ...(dockerProblem ? [dockerProblem] : []),
          ...(serving && !["running", "unknown"].includes(states[serving])
            ? [`${serving} serves, but its container is ${states[serving]}`]
            : []),
          ...(canary && !run ? [leftCanary(canary)] : []),
          ...(canary && !["running", "unknown"].includes(states[canary])
            ? [`${canary} is a canary, but its container is ${states[canary]}`]
            : []),
          ...(states.nginx === "running" && !follower.follows()
            ? ["nginx's log cannot be read: no figures"]
            : []),
          ...(found.runProblem ? [found.runProblem] : []),
        ],
        last,
      };
    },
    stop: async () => {
      end.abort();
      follower.stop();
      await Promise.all([nginx, run, containers, sessions].map(({ all }) => all));
    },
  };
}

/** While an earlier run is not recovered, the record has its colors, not those of this run. */
async function runNow(
  logFile: string,
  { verb, from, to, verified, since, left }: RunRecord,
): Promise<RunNow> {
  const sinceMs = Date.parse(since);
  const step = await readStep(logFile, sinceMs);
  const colors = left ? { from: undefined, to: undefined, verified: undefined } : { from, to, verified };
  return { verb, sinceMs, step, ...colors };
}

function statesOf(
  containers: Readonly<Record<Part, Container>> | undefined,
  settings: Settings,
): Seen["containers"] {
  const stateOf = (part: Part): Seen["containers"][Part] => containers?.[part].status ?? "unknown";
  const apis = containers ? apisOf(settings, containers) : readApis(settings);
  const auth = authState(settings, apis, stateOf("auth"));
  return { blue: stateOf("blue"), green: stateOf("green"), nginx: stateOf("nginx"), auth };
}
