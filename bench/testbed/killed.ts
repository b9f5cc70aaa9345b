import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "../../lib/settings.ts";
import type { Scratch } from "./scratch.ts";

export type Verb = "deploy" | "rollback";

/** A run as its process: what zx would start is a shell, and a signal to that is none to the run. */
export interface Run {
  /** The steps that it has said are done, as they stand in its output. */
  steps: readonly string[];
  kill(signal: NodeJS.Signals): void;
  /** Closes the reading end of its output, as `head` does. */
  closeOutput(): void;
  /** Resolves when so many steps are done, or the run has ended. */
  reached(steps: number): Promise<void>;
  /** Resolves when a step of this name is done. Throws when the run ends without. */
  passed(step: string): Promise<void>;
  ended: Promise<{ exitCode: number | null; signal: NodeJS.Signals | null; output: string }>;
}

const SCRIPTS = { deploy: "scripts/deploy-blue-green.mts", rollback: "scripts/rollback.mts" };

/** Starts a deploy or rollback of a scratch stack. */
export function startRun(stack: Scratch, verb: Verb, env: Record<string, string> = {}): Run {
  const loader = join(ROOT, "node_modules/tsx/dist/loader.mjs");
  const child = spawn(process.execPath, ["--import", loader, join(ROOT, SCRIPTS[verb])], {
    cwd: stack.folder,
    env: { ...stack.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const steps: string[] = [];
  let output = "";
  let over = false;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      output += `${line}\n`;
      const [, step] = line.match(/✓ (.+) \(/) ?? [];
      if (step) steps.push(step);
    });
  }
  return {
    steps,
    kill: (signal) => child.kill(signal),
    closeOutput: () => {
      child.stdout.destroy();
      child.stderr.destroy();
    },
    reached: async (count) => {
      while (!over && steps.length < count) await sleep(2);
    },
    passed: async (step) => {
      while (!steps.some((done) => done.startsWith(step))) {
        if (over) throw new Error(`ended before "${step}":\n${output}`);
        await sleep(2);
      }
    },
    ended: new Promise((resolve) =>
      child.on("close", (exitCode, signal) => {
        over = true;
        resolve({ exitCode, signal, output });
      }),
    ),
  };
}

/** Resolves when the lock file names a run that has begun. */
export async function locked({ stateDir }: Scratch, since: number): Promise<void> {
  for (;;) {
    const note = await readFile(join(stateDir, "lock"), "utf8").catch(() => "");
    const begun = Date.parse(note.match(/"since":"([^"]+)"/)?.[1] ?? "");
    if (begun >= since) return;
    await sleep(2);
  }
}
