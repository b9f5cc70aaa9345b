import { spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { Scratch } from "./scratch.ts";
import { scriptCommand } from "./script.ts";

export type Verb = "deploy" | "rollback";

/** A deploy or rollback in progress, started without a shell (as zx would), so that a signal reaches the run itself. */
export interface Run {
  /** The steps that its output has reported as done. */
  steps: readonly string[];
  kill(signal: NodeJS.Signals): void;
  /** Closes the reading end of its output, as `head` does. */
  closeOutput(): void;
  /** Resolves when `count` steps are done, or the run has ended. */
  waitForSteps(count: number): Promise<void>;
  /** Resolves when a step whose name starts with `step` is done. Throws if the run ends before. */
  waitForStep(step: string): Promise<void>;
  ended: Promise<{ exitCode: number | null; signal: NodeJS.Signals | null; output: string }>;
}

const SCRIPTS = { deploy: "deploy-blue-green", rollback: "rollback" } as const;

/** Starts a deploy or rollback of a scratch stack. `launcher` is a command that replaces itself with the command after it. */
export function startRun(
  stack: Scratch,
  verb: Verb,
  env: Record<string, string> = {},
  launcher: readonly string[] = [],
  options: readonly string[] = [],
): Run {
  const [command = "", ...args] = [...launcher, ...scriptCommand(SCRIPTS[verb]), ...options];
  const child = spawn(command, args, {
    cwd: stack.folder,
    env: { ...stack.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const steps: string[] = [];
  const progress = new EventEmitter<{ change: [] }>();
  let output = "";
  let hasEnded = false;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      output += `${line}\n`;
      const [, step] = line.match(/✓ (.+) \(/) ?? [];
      if (!step) return;
      steps.push(step);
      progress.emit("change");
    });
  }
  return {
    steps,
    kill: (signal) => child.kill(signal),
    closeOutput: () => {
      child.stdout.destroy();
      child.stderr.destroy();
    },
    waitForSteps: async (count) => {
      while (!hasEnded && steps.length < count) await once(progress, "change");
    },
    waitForStep: async (step) => {
      while (!steps.some((done) => done.startsWith(step))) {
        if (hasEnded) throw new Error(`ended before "${step}":\n${output}`);
        await once(progress, "change");
      }
    },
    ended: new Promise((resolve) =>
      child.on("close", (exitCode, signal) => {
        hasEnded = true;
        progress.emit("change");
        resolve({ exitCode, signal, output });
      }),
    ),
  };
}

/** Resolves when the lock file contains the record of a run that began at `since` or later. */
export async function waitForLock({ stateDir }: Scratch, since: number): Promise<void> {
  for (;;) {
    const record = await readFile(join(stateDir, "lock"), "utf8").catch(() => "");
    const begun = Date.parse(record.match(/"since":"([^"]+)"/)?.[1] ?? "");
    if (begun >= since) return;
    await sleep(2);
  }
}
