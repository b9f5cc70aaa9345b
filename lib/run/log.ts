import { styleText } from "node:util";
import { ToolError } from "../errors.ts";
import { visible, visibleLines } from "../util/visible.ts";

interface Terminal {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

/** The output of a run: one line per step, live on a terminal, time-stamped elsewhere. */
export interface Log {
  /** Runs one step and prints how long it took, in seconds. Throws what the step throws. */
  step<T>(name: string, act: () => Promise<T>): Promise<T>;
  info(message: string): void;
  /** The progress of the current step, shown beside it on a terminal. */
  progress(message: string): void;
  /** The outcome in one line: with --quiet, the only one on stdout. */
  summary(message: string): void;
  /** A problem that does not stop the run; to stderr. */
  warn(message: string): void;
  /** What happened, what was seen, what to do next; to stderr. */
  failure(error: unknown): void;
  /** The steps so far, with their seconds. */
  durations(): Readonly<Record<string, number>>;
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const indent = (text: string): string => text.trimEnd().replace(/^|\n/g, "$&  ");

/** What happened, what was seen, what to do next: one line or more each. */
function describe(error: unknown): string[] {
  if (!(error instanceof ToolError)) {
    return [
      `Error: Unexpected: ${error instanceof Error ? error.stack : String(error)}`,
      "Next: check which color serves (curl -si on /health through nginx), then run this again with --verbose and report the output.",
    ];
  }
  const { message, details, next } = error;
  return [`Error: ${message}`, details && indent(details), `Next: ${next}`].filter(Boolean);
}

// The log decides itself whether to color: newer Node versions would ask stdout, even for a line to stderr.
const styled =
  (style: "green" | "red" | "yellow") =>
  (text: string): string =>
    styleText(style, text, { validateStream: false });

/** Colors the first word of a line, which says what kind of line it is. */
const paint = (text: string): string =>
  text
    .replace(/^✓/, styled("green"))
    .replace(/^(✗|Error:)/, styled("red"))
    .replace(/^Warning:/, styled("yellow"));

interface LogOptions {
  /** No live line, because Docker's output would break it. */
  verbose?: boolean;
  /** Only the summary on stdout. */
  quiet?: boolean;
  /** Also receives every line, time-stamped. */
  file?: (line: string) => void;
  out?: Terminal;
  err?: Terminal;
}

/** Seconds between updates of the current step: on a terminal, and elsewhere. */
const [LIVE_SECONDS, ALIVE_SECONDS] = [0.2, 30];

/** Creates a log to stdout, stderr and a file. */
export function createLog({
  verbose = false,
  quiet = false,
  file = () => undefined,
  out = process.stdout,
  err = process.stderr,
}: LogOptions = {}): Log {
  const live = out.isTTY === true && !verbose && !quiet;
  const painted = live && !process.env.NO_COLOR;
  const done: Record<string, number> = {};
  let current = ""; // the live line; messages are written above it
  let detail = "";

  const clear = (): void => {
    if (live && current) out.write("\r\u001b[K");
  };
  const draw = (): void => {
    const columns = (out.columns ?? 80) - 1; // a wrapped line cannot be erased
    if (live && current) out.write(`\r\u001b[K${current.slice(0, columns)}`);
  };
  /** All output goes through here. Foreign text in it can neither control the terminal nor begin a line. */
  const say = (to: Terminal | undefined, ...parts: string[]): void => {
    const text = parts.map(visibleLines).join("\n");
    const stamped = text.replace(/^/gm, `${new Date().toISOString()} `);
    file(stamped);
    if (!to) return;
    clear();
    to.write(`${painted ? paint(text) : live ? text : stamped}\n`);
    draw();
  };
  const stdout = quiet ? undefined : out;

  return {
    async step(name, act) {
      const since = performance.now();
      detail = "";
      const show = (): void => {
        current = `… ${name} ${seconds(since)}${detail && ` · ${detail}`}`;
        if (live) draw();
        else if (performance.now() - since > 1000) say(stdout, current);
      };
      say(undefined, `… ${name}`); // only to the file: `status --watch` reads there which step is in progress
      show();
      const timer = setInterval(show, (live ? LIVE_SECONDS : ALIVE_SECONDS) * 1000);
      const end = (mark: string): void => {
        clearInterval(timer);
        clear();
        current = "";
        say(stdout, `${mark} ${name} (${seconds(since)})`);
      };
      try {
        const result = await act();
        end("✓");
        done[name] = Math.round(performance.now() - since) / 1000;
        return result;
      } catch (error) {
        end("✗");
        throw error;
      }
    },
    progress: (message) => {
      detail = visible(message.trim().replaceAll("\n", " "));
    },
    info: (message) => say(stdout, message),
    summary: (message) => say(out, message),
    warn: (message) => say(err, `Warning: ${message}`),
    failure: (error) => say(err, ...describe(error)),
    durations: () => done,
  };
}
