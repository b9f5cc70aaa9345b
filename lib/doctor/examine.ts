import { type Context, readOnlyContext } from "../run/context.ts";
import { readLock } from "../run/lock.ts";
import type { Log } from "../run/log.ts";
import { loadSettings, type Settings } from "../settings.ts";
import { checkHealth, checkIdle, checkSessions } from "./behavior.ts";
import { checkCronPath, checkZone } from "./cron.ts";
import { type Check, type Finding, make, ok, type Verdict, verdictOf, warning } from "./finding.ts";
import { checkHookFiles, checkOAuthData, checkShared, checkStateFolder, checkVault } from "./folders.ts";
import { checkSource, imageToTry, withoutNewImages } from "./image.ts";
import {
  checkCompose,
  checkDisk,
  checkEngine,
  checkLimits,
  checkLockProgram,
  checkMemory,
} from "./machine.ts";
import { checkNginx } from "./nginx.ts";
import { checkAuthPort, checkColorPort, checkNginxPort } from "./ports.ts";
import { buildTrial, startTrial, type Trial, withTrial } from "./trial.ts";

/** Checks that work without settings. */
const WITHOUT_SETTINGS: readonly { name: string; look(): Promise<Verdict> }[] = [
  { name: "lock program", look: checkLockProgram },
  { name: "cron", look: checkZone },
  { name: "cron PATH", look: () => checkCronPath() },
];

/** In this order. Each one's `needs` are above it. */
const CHECKS: readonly Check[] = [
  { name: "state folder", needs: [], look: checkStateFolder },
  { name: "vault", needs: [], look: checkVault },
  { name: "OAuth data", needs: [], look: checkOAuthData },
  { name: "hooks", needs: [], look: checkHookFiles },
  { name: "engine", needs: [], look: checkEngine },
  { name: "Compose", needs: ["engine"], look: checkCompose },
  { name: "limits", needs: ["engine"], look: checkLimits },
  { name: "memory", needs: ["engine"], look: checkMemory },
  { name: "disk", needs: ["engine"], look: checkDisk },
  { name: "image", needs: ["engine", "disk"], look: checkSource },
  { name: "nginx port", needs: ["engine"], look: checkNginxPort },
  { name: "auth port", needs: ["engine"], look: checkAuthPort },
  { name: "blue port", needs: ["engine"], look: checkColorPort("blue") },
  { name: "green port", needs: ["engine"], look: checkColorPort("green") },
  { name: "nginx", needs: ["engine"], look: checkNginx },
  { name: "shared folders", needs: ["engine", "nginx", "vault", "OAuth data"], look: checkShared },
];

/** A trial runs the API's code with the vault and needs memory, so what a release checks before it must be in order. */
const TRIAL_NEEDS = [
  "settings",
  "engine",
  "Compose",
  "memory",
  "image",
  "vault",
  "OAuth data",
  "shared folders",
];

export interface Examination {
  environment: NodeJS.ProcessEnv;
  /** Build the image for the trial container. */
  build: boolean;
  log: Log;
  signal: AbortSignal;
  /** Receives each finding as soon as there is one. */
  tell(finding: Finding): void;
  /** Receives the name of each check when it begins. */
  begin(name: string): void;
}

/** The checks so far, and the means to make more. */
interface Examiner extends Examination {
  /** The checks that found a problem, and those that could therefore not be made. */
  problems: Set<string>;
  skipped: Set<string>;
}

function report({ problems, tell }: Examiner, finding: Finding): void {
  if (finding.level === "problem") problems.add(finding.check);
  tell(finding);
}

const isBlocked = ({ problems, skipped }: Examiner, needs: readonly string[]): boolean =>
  needs.some((name) => problems.has(name) || skipped.has(name));

async function attempt(examiner: Examiner, { name, needs, look }: Check, context: Context): Promise<void> {
  if (isBlocked(examiner, needs)) return void examiner.skipped.add(name);
  examiner.begin(name);
  report(examiner, await make(name, context, (log) => look({ ...context, log })));
}

/** The settings, as far as they can be used, and what is wrong with them for a release. */
function readSettings(environment: NodeJS.ProcessEnv): {
  settings: Settings | undefined;
  findings: Finding[];
} {
  const check = "settings";
  try {
    const settings = loadSettings(environment);
    const ignored = settings.warnings.map((text) => ({ check, level: "warning" as const, finding: text }));
    return { settings, findings: ignored.length > 0 ? ignored : [{ check, ...ok("can be used") }] };
  } catch (error) {
    const findings = [{ check, ...verdictOf(error) }];
    try {
      return { settings: loadSettings(environment, undefined, "nothing"), findings };
    } catch {
      return { settings: undefined, findings };
    }
  }
}

/** A context for the functions of a release: without a lock, and with commands that a signal kills. */
const contextOf = (settings: Settings, { log, signal }: Examination): Context => ({
  ...readOnlyContext(settings, log),
  signal,
  commandSignal: signal,
  change: async (_, act) => void (await act()), // shared folders can only be checked with a container
});

/** A trial would take memory from a run in progress; undefined when there is none. Never throws. */
async function runInProgress({ settings }: Context): Promise<Verdict | undefined> {
  const lock = await readLock(settings.lockFile);
  if (!lock?.held) return undefined;
  const next = "Run this again when it has ended.";
  return warning(`not tried: a ${lock.record?.verb ?? "run"} is in progress`, next);
}

/** Tries the API's image in a container of its own. */
async function tryApi(examiner: Examiner, context: Context): Promise<void> {
  const check = "trial";
  const busy = await runInProgress(context);
  if (busy) return report(examiner, { check, ...busy });
  if (isBlocked(examiner, TRIAL_NEEDS)) {
    for (const name of [check, "health", "idle timeout", "sessions"]) examiner.skipped.add(name);
    return;
  }
  let trial: Trial | undefined;
  const start = async (inner: Context, project: string): Promise<Verdict> => {
    const image = examiner.build ? await buildTrial(inner, project) : await imageToTry(inner);
    if (image === undefined)
      return warning(
        "not tried: no color has an image for these settings",
        "Add --build to build one, or release: a release checks it too.",
      );
    const begun = await runInProgress(context); // a build or pull takes long enough for cron to start one
    if (begun) return begun;
    trial = await startTrial(inner, project, image);
    return ok(`${image} runs, with a read-only vault and without a public port`);
  };
  try {
    await withTrial(context, async (project) => {
      await attempt(examiner, { name: check, needs: [], look: (inner) => start(inner, project) }, context);
      if (trial === undefined) return;
      for (const each of checksOf(trial)) await attempt(examiner, each, context);
    });
  } catch (error) {
    report(examiner, { check, ...verdictOf(error) });
  }
}

const checksOf = (trial: Trial): Check[] => [
  { name: "health", needs: [], look: (context) => checkHealth(context, trial) },
  { name: "idle timeout", needs: ["health"], look: (context) => checkIdle(context, trial) },
  { name: "sessions", needs: ["health"], look: (context) => checkSessions(context, trial) },
];

/** Examines this machine and this stack, and leaves nothing behind. Throws InterruptedError. */
export async function examine(examination: Examination): Promise<void> {
  const examiner: Examiner = { ...examination, problems: new Set(), skipped: new Set() };
  const { settings, findings } = readSettings(examination.environment);
  for (const finding of findings) report(examiner, finding);
  for (const { name, look } of WITHOUT_SETTINGS) report(examiner, await make(name, examination, look));
  if (!settings) {
    for (const { name } of CHECKS) examiner.skipped.add(name);
    examiner.skipped.add("trial");
  } else {
    const context = contextOf(settings, examination);
    await withoutNewImages(context, async () => {
      for (const check of CHECKS) await attempt(examiner, check, context);
      await tryApi(examiner, context);
    });
  }
  const { problems, skipped } = examiner;
  if (skipped.size === 0) return;
  const next = `First correct: ${[...problems].join(", ")}.`;
  report(examiner, { check: "not checked", ...warning([...skipped].join(", "), next) });
}
