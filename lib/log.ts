import { styleText } from "node:util";
import { ToolError } from "./errors.ts";
import { visible, visibleLines } from "./visible.ts";

interface Terminal {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

/** Where a run says what it does. One line a step: live on a terminal, time-stamped elsewhere. */
export interface Log {
  /** Runs one step of the protocol and says how long it took, in seconds; what it throws passes through. */
  step<T>(name: string, act: () => Promise<T>): Promise<T>;
  info(message: string): void;
  /** What the step that runs is at; shown beside it on a terminal. */
  progress(message: string): void;
  /** The outcome in one line: the only one on stdout when the run is to be quiet. */
  summary(message: string): void;
  /** Something to look at that does not stop the run; goes to stderr. */
  warn(message: string): void;
  /** What happened, what was seen, what to do next; goes to stderr. */
  failure(error: unknown): void;
  /** The steps done so far that took a noticeable time, with their seconds, as one line. */
  steps(): string;
  /** All steps done so far, with their seconds. */
  durations(): Readonly<Record<string, number>>;
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const indent = (text: string): string => text.trimEnd().replace(/^|\n/g, "$&  ");

/** What happened, what was seen, what to do next: each begins a line. */
function describe(error: unknown): string[] {
  if (!(error instanceof ToolError)) {
    return [
      `Error: Unexpected: ${error instanceof Error ? error.stack : String(error)}`,
      "Next: see what serves with curl -si on /health through nginx, then run this again with --verbose and report what it shows.",
    ];
  }
  const { message, details, next } = error;
  return [`Error: ${message}`, details && indent(details), `Next: ${next}`].filter(Boolean);
}

/** The first word of a line tells what kind it is; only that gets a color. */
const paint = (text: string): string =>
  text
    .replace(/^✓/, (mark) => styleText("green", mark))
    .replace(/^(✗|Error:)/, (mark) => styleText("red", mark))
    .replace(/^Warning:/, (mark) => styleText("yellow", mark));

interface Manner {
  /** Docker's output would tear a live line: there is none. */
  verbose?: boolean;
  /** Nothing on stdout but the summary. */
  quiet?: boolean;
  /** Gets every line as well, time-stamped. */
  file?: (line: string) => void;
  out?: Terminal;
  err?: Terminal;
}

/** How often, in seconds, a step says that it is alive: on a terminal, and elsewhere. */
const [LIVE_SECONDS, ALIVE_SECONDS] = [0.2, 30];

/** A log onto stdout and stderr, and into a file. */
export function createLog({
  verbose = false,
  quiet = false,
  file = () => undefined,
  out = process.stdout,
  err = process.stderr,
}: Manner = {}): Log {
  const live = out.isTTY === true && !verbose && !quiet;
  const painted = live && !process.env.NO_COLOR;
  const started = performance.now();
  const done: Record<string, number> = {};
  let current = ""; // the live line, so that a message can be written above it
  let detail = "";

  const clear = (): void => {
    if (live && current) out.write("\r\u001b[K");
  };
  const draw = (): void => {
    const columns = (out.columns ?? 80) - 1; // a line that wraps cannot be taken back
    if (live && current) out.write(`\r\u001b[K${current.slice(0, columns)}`);
  };
  /** Everything that is said goes through here; what is not the tool's own in it can neither act nor begin a line. */
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
    steps: () =>
      Object.entries(done)
        .filter(([, took]) => took >= 0.05)
        .map(([name, took]) => `${name} ${took.toFixed(1)} s`)
        .concat(`in all ${seconds(started)}`)
        .join(" · "),
    durations: () => done,
  };
}
