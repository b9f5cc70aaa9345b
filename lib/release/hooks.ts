import { accessSync, constants, lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { HookError, InterruptedError, ToolError, UsageError } from "../errors.ts";
import { exposureOf } from "../exposure.ts";
import { type Context, uninterruptible } from "../run/context.ts";
import { type Ended, failureDetails, runOwnerCommand } from "../run/owner-command.ts";
import type { RunEnd } from "../run/script.ts";
import { checkoutOwner, openToOthers, strangeOwner } from "../run/trust.ts";
import type { Settings } from "../settings.ts";
import { quote } from "../util/quote.ts";
import { visible } from "../util/visible.ts";
import { openColorUrls } from "./color-urls.ts";
import { loopVariables } from "./loop-variables.ts";

/** The hooks that can stop a run, and those that report what it did. */
const STOPPING = ["pre-build", "pre-switch"] as const;
const REPORTING = ["post-deploy", "post-rollback", "on-failure"] as const;
type StoppingHook = (typeof STOPPING)[number];
type Hook = StoppingHook | (typeof REPORTING)[number];

/** The hooks that a rollback does not run: one of them must not block it. */
const NOT_IN_ROLLBACK: readonly Hook[] = ["pre-build", "post-deploy"];

/** Characters of LOOP_MESSAGE. */
const LONGEST_MESSAGE = 4000;

/** The file of a hook in HOOKS_PATH; undefined when there is none. */
function fileOf({ hooksPath }: Settings, hook: Hook): string | undefined {
  if (hooksPath === undefined) return undefined;
  const file = join(hooksPath, hook);
  try {
    return lstatSync(file, { throwIfNoEntry: false }) && file;
  } catch {
    return file; // it cannot be seen, so `distrust` says why
  }
}

/** A file, and what it links to, one after the other: each of them decides what runs. */
function hopsOf(file: string): string[] {
  const own = join(realpathSync(dirname(file)), basename(file));
  return lstatSync(own).isSymbolicLink() ? [own, ...hopsOf(resolve(dirname(own), readlinkSync(own)))] : [own];
}

/** Says in words who else could have written a hook, which runs with the rights of the run; undefined for nobody. Never throws. */
function distrust(settings: Settings, file: string): string | undefined {
  try {
    const real = realpathSync(file); // fails if links lead in a circle
    if (lstatSync(dirname(file)).isSymbolicLink()) return `${dirname(file)}: it is a symbolic link`;
    const hops = hopsOf(file);
    for (const hop of hops) {
      const exposed = exposureOf(hop, settings);
      if (exposed) return `${hop}: ${exposed}`;
    }
    for (const path of new Set([...hops.map((hop) => dirname(hop)), real])) {
      const found = statSync(path);
      const why = openToOthers(found) ?? strangeOwner(found);
      if (why) return `${path}: ${why}`;
    }
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** Is this a file that can be executed? */
function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/**
 * Rejects hooks that somebody else could have written, and those before a build or switch that are not executable: their owner
 * expects them to run. Without HOOKS_PATH, does nothing. Throws UsageError.
 */
export async function checkHooks(context: Context): Promise<void> {
  const { settings, options, log, lock } = context;
  if (settings.hooksPath === undefined) return;
  const isRollback = lock.recorded().verb === "rollback";
  const hooks = [...STOPPING, ...REPORTING].filter((hook) => !isRollback || !NOT_IN_ROLLBACK.includes(hook));
  await context.inspect("check the hooks", async () => {
    for (const hook of hooks) check(settings, hook);
  });
  const last = fileOf(settings, "on-failure");
  if (options.dryRun && last) log.info(`would run the hook on-failure, if the run fails\n  ${quote(last)}`);
}

function check(settings: Settings, hook: Hook): void {
  const file = fileOf(settings, hook);
  if (file === undefined) return;
  const why = distrust(settings, file);
  if (why)
    throw new UsageError(`The hook ${file} cannot be trusted: ${why}`, {
      next: `Check who wrote the hook. Keep it, and what it links to, outside the folders that containers can write to. Only root, you or the owner of the checkout (user ${checkoutOwner().uid}) may write to it and to its folder (chown, chmod go-w). Nothing was changed.`,
    });
  if (isStopping(hook) && !isExecutable(file))
    throw new UsageError(`The hook ${file} is not executable`, {
      next: `Run: chmod +x ${quote(file)}, or move it away; nothing was changed.`,
    });
}

const isStopping = (hook: Hook): hook is StoppingHook => STOPPING.some((stopping) => stopping === hook);

/**
 * Runs a hook from HOOKS_PATH, for HOOK_SECONDS at most; does nothing when there is none. `more` are variables for this hook.
 * Throws HookError for a hook before a build or switch, InterruptedError. The failure of another hook is a warning.
 */
export async function runHook(
  context: Context,
  hook: Hook,
  more: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { settings, log } = context;
  const file = fileOf(settings, hook);
  if (file === undefined) return;
  const run = async (): Promise<Ended> => {
    const failure = distrust(settings, file); // once more: it may have been replaced meanwhile
    if (failure) return { failure, output: "" };
    const variables = { ...loopVariables(context), ...more };
    const close = await openColorUrls(context).catch((error) => {
      if (isStopping(hook) || !(error instanceof ToolError) || error instanceof InterruptedError) throw error;
      // The release stands, or has failed. Its owner wants to know, even if the colors cannot be reached.
      log.warn(`LOOP_URL does not answer during the hook ${hook}: ${error.message}`);
      return () => undefined;
    });
    return runOwnerCommand(context, [file], settings.hookSeconds, variables).finally(close);
  };
  let ended: Ended | undefined;
  const act = async (): Promise<void> => {
    ended = await run();
    if (!ended.failure) return;
    throw new HookError(`Hook ${hook} failed`, {
      details: failureDetails(ended),
      next: "Fix what its output shows and run this again; no traffic was moved.",
    });
  };
  try {
    await context.change(`run the hook ${hook}`, act, [quote(file)]);
  } catch (error) {
    if (isStopping(hook) || !(error instanceof HookError)) throw error;
    log.warn(`the hook ${hook} failed: ${ended?.failure}`);
  }
}

/** Runs the hook on-failure, with what the run failed with. Never throws. */
export const runFailureHook = (context: Context, { result, message, exitCode }: RunEnd): Promise<void> =>
  runHook(uninterruptible(context), "on-failure", {
    LOOP_RESULT: result,
    LOOP_MESSAGE: visible(message).slice(0, LONGEST_MESSAGE), // no environment can hold a NUL
    LOOP_EXIT_CODE: String(exitCode),
  });
