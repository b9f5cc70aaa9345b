import { $, type LogEntry, type ProcessOutput } from "zx/core";
import { DeadlineError } from "./errors.ts";
import { visible, visibleLines } from "./visible.ts";

interface How {
  /** Seconds after which it is killed; undefined for none. */
  deadline: number | undefined;
  /** What it is started with, all of it. */
  environment?: Record<string, string>;
  /** Show it and its output. */
  verbose?: boolean;
  /** Kills it; only for commands that may end anywhere. */
  signal?: AbortSignal;
  /** A file to keep open in it as descriptor 3: the run's lock, which is then held until its last command has ended. */
  keepOpen?: number | undefined;
  /** Told each line of its output while it runs. */
  onLine?: (line: string) => void;
}

/** What zx shows with `verbose`: set in, and without what could act on the terminal; a container's log may be in it. */
const show = (entry: LogEntry): void => {
  if (!entry.verbose) return;
  if (entry.kind === "cmd") process.stderr.write(`$ ${visibleLines(entry.cmd)}\n`);
  if (entry.kind === "stdout" || entry.kind === "stderr")
    process.stderr.write(visible(entry.data.toString()).replace(/^(?!$)/gm, "  "));
};

/**
 * Runs an outside command; the caller judges its exit code. It has a process group of its own: a Ctrl-C on the terminal
 * reaches the run, which knows what to take back, and not half of its commands.
 * Throws DeadlineError when it had to be killed for taking too long.
 */
export async function run(command: string, args: string[], how: How): Promise<ProcessOutput> {
  const { deadline, environment, verbose = false, signal, keepOpen, onLine } = how;
  const running = $({
    ...(environment ? { env: environment } : {}),
    nothrow: true,
    quiet: !verbose,
    verbose,
    log: show,
    detached: true,
    // With a socket as standard input, bash takes itself for a remote shell and reads ~/.bashrc, each time.
    stdio: ["ignore", "pipe", "pipe", ...(keepOpen === undefined ? [] : [keepOpen])],
  })`${command} ${args}`;

  // Not zx's own time-out and signal: they look for children with ps, which is not everywhere, and fail without it.
  const kill = (): void => {
    try {
      if (running.pid) process.kill(-running.pid, "SIGKILL");
    } catch {
      // It has just ended by itself.
    }
  };
  let late = false;
  const expire = (): void => {
    late = true;
    kill();
  };
  const timer = deadline === undefined ? undefined : setTimeout(expire, deadline * 1000);
  if (signal?.aborted) kill();
  signal?.addEventListener("abort", kill);
  if (onLine) {
    const tell = (chunk: Buffer): void => onLine(chunk.toString().trimEnd().split("\n").at(-1) ?? "");
    running.stdout.on("data", tell);
    running.stderr.on("data", tell);
  }
  try {
    const output = await running;
    if (!late) return output;
    throw new DeadlineError(`${[command, ...args].join(" ")} did not end within ${deadline} s`, {
      details: output.stdall.trim().split("\n").slice(-40).join("\n"),
      next: "See whether Docker is well (docker ps; on the NAS: Container Manager, Log), then run this again.",
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", kill);
  }
}
