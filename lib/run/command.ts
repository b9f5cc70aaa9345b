import { $, type LogEntry, type ProcessOutput } from "zx/core";
import { DeadlineError } from "../errors.ts";
import { quote } from "../util/quote.ts";
import { visible, visibleLines } from "../util/visible.ts";

interface How {
  /** Seconds after which the command is killed; undefined for no limit. */
  deadline: number | undefined;
  /** Its whole environment. */
  environment?: Record<string, string>;
  /** Print the command and its output. */
  verbose?: boolean;
  /** With `verbose`, print the command only: its output may hold secrets. */
  hideOutput?: boolean;
  /** Kills the command when aborted; only for commands that may stop at any point. */
  signal?: AbortSignal;
  /** A file that the command inherits as descriptor 3: the run's lock, which is held until its last command has ended. */
  keepOpen?: number | undefined;
  /** What it reads on its standard input. */
  input?: string;
  /** Receives each line of its output while it runs. */
  onLine?: (line: string) => void;
}

/** Prints what zx reports with `verbose`, indented and escaped: a container's log may be in it. */
const show =
  (hideOutput: boolean) =>
  (entry: LogEntry): void => {
    if (!entry.verbose || (hideOutput && entry.kind !== "cmd")) return;
    if (entry.kind === "cmd") process.stderr.write(`$ ${visibleLines(entry.cmd)}\n`);
    if (entry.kind === "stdout" || entry.kind === "stderr")
      process.stderr.write(visible(entry.data.toString()).replace(/^(?!$)/gm, "  "));
  };

/**
 * Runs an external command; the caller checks its exit code. The command gets its own process group, so that Ctrl-C reaches
 * only the run, which knows what to undo.
 * Throws DeadlineError when the command took too long and was killed.
 */
export async function run(command: string, args: string[], how: How): Promise<ProcessOutput> {
  const { deadline, environment, verbose = false, hideOutput = false, signal, keepOpen, input, onLine } = how;
  const running = $({
    ...(environment ? { env: environment } : {}),
    ...(input === undefined ? {} : { input }),
    nothrow: true,
    quiet: !verbose,
    verbose,
    log: show(hideOutput),
    detached: true,
    // Every system has it; macOS has only bash 3.2, and BusyBox systems none. `exec` saves a process.
    shell: "/bin/sh",
    prefix: "exec ",
    quote,
    // With a socket as standard input, some shells believe they are remote and read ~/.bashrc every time.
    stdio: [
      input === undefined ? "ignore" : "pipe",
      "pipe",
      "pipe",
      ...(keepOpen === undefined ? [] : [keepOpen]),
    ],
  })`${command} ${args}`;

  // Not zx's own timeout and signal: they need ps, which not every system has.
  const kill = (): void => {
    try {
      if (running.pid) process.kill(-running.pid, "SIGKILL");
    } catch {
      // It just ended.
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
      next: "Check that Docker works (docker ps; on the NAS: Container Manager, Log), then run this again.",
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", kill);
  }
}
