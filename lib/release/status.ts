import type { Apis } from "../api.ts";
import { type Color, isColor } from "../color.ts";
import type { Container } from "../docker/container.ts";
import { inspectImage, taggedImage } from "../docker/image.ts";
import { apisOf, readApis } from "../engine/apis.ts";
import { colorStates, inspectColor } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import { inspectServices } from "../engine/stack.ts";
import { readShare } from "../nginx/canary.ts";
import { readLink } from "../nginx/link.ts";
import { probeLoadedColor, probeNginx, probeReplicas } from "../nginx/probe.ts";
import type { Context } from "../run/context.ts";
import { type Entry, readHistory } from "../run/history.ts";
import { readLock } from "../run/lock.ts";
import { howItEnded } from "../run/record.ts";
import { isFolder } from "../settings-schema.ts";
import { type Observation, resolveActive } from "./active.ts";
import { freeSpace } from "./disk.ts";
import { sourceOf } from "./releases.ts";
import { type KeptSessions, readKeptSessions } from "./sessions.ts";
import { readMarked, readStateFile } from "./state-file.ts";
import { authState, type ColorStatus, clock, leftCanary, type Status, sessionsOf } from "./status-report.ts";
import { vaultLoss } from "./vault.ts";

const RUNS_SHOWN = 5;

/** Seconds that the end of the sessions may take, besides the drain: it polls, reloads nginx and stops a container. */
const ENDS_SECONDS = 60;

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function colorStatus(
  context: Context,
  color: Color,
  services: Promise<Readonly<Record<Color, Container>> | undefined>,
  apis: Promise<Apis>,
  history: Promise<readonly Entry[]>,
): Promise<ColorStatus> {
  const engine = engineOf(context);
  const port = engine.portOf(context, color) ?? null;
  const asked = apis.then(async ({ [color]: api }) => {
    const own = await engine.probe(context, color, api, 1);
    return own.healthy && own.addresses ? probeReplicas(context, color, own.addresses) : own;
  });
  try {
    const {
      status,
      image: id,
      discarded,
      replicas,
    } = (await services)?.[color] ?? (await inspectColor(context, color));
    const image = await (id ? inspectImage(context, id) : taggedImage(context, color));
    const { healthy, finding } = await asked;
    return {
      container: status,
      port,
      replicas: replicas ? [...replicas] : null,
      image: image?.id ?? null,
      source: sourceOf(await history, image?.id) ?? null,
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
      replicas: null,
      image: null,
      source: null,
      built: null,
      revision: null,
      failed: false,
      health: null,
    };
  }
}

/** What can disagree with nginx, and the problems that hide parts of it: each look may fail on its own. */
async function observePlaces(
  context: Context,
): Promise<
  Omit<Partial<Observation>, "nginx"> & { published: Color | undefined; problems: readonly string[] }
> {
  const { settings } = context;
  const { vaultPath } = settings;
  const lost =
    vaultPath === undefined || isFolder(vaultPath)
      ? (await vaultLoss(settings))?.finding
      : `the vault ${vaultPath} does not exist`;
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
    attempt(readLink(context)),
    attempt(readMarked(settings)),
    attempt(readStateFile(settings)),
    attempt(colorStates(context)),
  ]);
  return { link, file, published, problems, ...(containers ? { containers } : {}) };
}

/** What disagrees with nginx while no run changes it. */
function disagreements(seen: Observation, published: Color | undefined, kept: boolean): string[] {
  const { nginx, link, file } = seen;
  const { bothRun, wrong } = resolveActive(seen);
  const marked = file !== published && wrong.includes("file");
  return [
    ...(bothRun && !kept ? ["both colors run"] : []),
    ...(wrong.includes("link")
      ? [`the active link points at ${link ?? "nothing"}, nginx serves ${nginx}`]
      : []),
    ...(marked ? [`${file ?? "no color"} is marked as active, nginx serves ${nginx}`] : []),
    ...(nginx && published !== nginx
      ? [`the state file says ${published ?? "nothing"}, nginx serves ${nginx}`]
      : []),
  ];
}

/** Inspects everything and changes nothing. Never throws: what cannot be seen is reported as unknown. */
export async function readStatus(context: Context): Promise<Status> {
  const { settings } = context;
  const lock = await readLock(settings.lockFile);
  const history = readHistory(settings.historyFile);
  const services = inspectServices(context).catch(() => undefined);
  // As the containers say: right after an upgrade nothing is recorded, and the settings may be those of the next release already.
  const known = services.then((seen) => (seen ? apisOf(settings, seen) : readApis(settings)));
  const [answer, loaded, places, blue, green, front, space, runs, sessions] = await Promise.all([
    known.then((apis) => probeNginx(settings, "blue", apis)),
    probeLoadedColor(settings),
    observePlaces(context),
    colorStatus(context, "blue", services, known, history),
    colorStatus(context, "green", services, known, history),
    services,
    freeSpace(context).catch(() => undefined),
    history,
    readKeptSessions(context).catch(() => undefined),
  ]);
  const canary = isColor(loaded.canary) ? loaded.canary : undefined;
  // Without the key, which not everybody can read, nginx sends the probe to the canary now and then.
  const answered = canary === undefined ? answer.color : loaded.color;
  const serving = answer.healthy && isColor(answered) ? answered : undefined;
  const { link, file, published, containers } = places;
  const drift = [
    ...places.problems,
    ...(serving ? [] : [`no healthy response through nginx: ${answer.finding}`]),
    ...(containers && !lock?.held
      ? disagreements({ nginx: serving, containers, link, file }, published, sessions !== undefined)
      : []),
  ];
  const { container, health, port } = serving ? { blue, green }[serving] : {};
  if (serving && ["absent", "created", "exited", "dead"].includes(container ?? ""))
    drift.push(`${serving} serves, but its container does not run: is it still a service of a swarm?`);
  if (container === "running" && health !== "healthy")
    drift.push(
      port === null
        ? `${serving} serves, but not all of its replicas are healthy: ${health}`
        : `${serving} serves, but is not healthy on its own port: ${health}`,
    );
  const nginx = front?.nginx.status ?? "unknown";
  const auth = front?.auth.status ?? "unknown";
  if (front && nginx !== "running") drift.push(`nginx is ${nginx}`);
  const apis = await known;
  const needsAuth = settings.api.auth === "on" || (serving && apis[serving].auth === "on");
  if (front && auth !== "running" && needsAuth) drift.push(`auth is ${auth}`);
  if (sessions && isOverdue(context, sessions))
    drift.push(
      `${sessions.color} still serves its sessions, although they should have ended at ${clock(sessions.untilMs)}. Run: npx tsx scripts/end-sessions.mts`,
    );
  if (canary && !lock?.held) drift.push(leftCanary(canary));
  if (lock?.record && !lock.held) drift.push(howItEnded(lock.record));
  return {
    project: settings.project,
    serving: serving ?? null,
    colors: { blue, green },
    nginx,
    auth: authState(settings, apis, auth),
    link: link ?? null,
    stateFile: published ?? null,
    run: lock?.record
      ? { held: lock.held, verb: lock.record.verb, pid: lock.record.pid, since: lock.record.since }
      : null,
    sessions: sessions ? sessionsOf(sessions) : null,
    canary: canary ? { color: canary, percent: (await readShare(settings)) ?? null } : null,
    drift,
    freeBytes: space?.bytes ?? null,
    runs: runs.slice(-RUNS_SHOWN).reverse(),
  };
}

/** Is the end of the sessions so late that nobody can be working on it? */
const isOverdue = ({ settings }: Context, { untilMs }: KeptSessions): boolean =>
  Date.now() > untilMs + (settings.drainSeconds + ENDS_SECONDS) * 1000;
