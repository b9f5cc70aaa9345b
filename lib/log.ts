import { ToolError } from "./errors.ts";

interface Terminal {
  isTTY?: boolean;
  write(text: string): unknown;
}

/** Where a run says what it does. One line a step: live on a terminal, time-stamped elsewhere. */
export interface Log {
  /** Runs one step of the protocol and says how long it took, in seconds; what it throws passes through. */
  step<T>(name: string, act: () => Promise<T>): Promise<T>;
  info(message: string): void;
  /** Something to look at that does not stop the run; goes to stderr. */
  warn(message: string): void;
  /** What happened, what was seen, what to do next; goes to stderr. */
  failure(error: unknown): void;
  /** The steps done so far that took a noticeable time, with their seconds, as one line. */
  steps(): string;
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const indent = (text: string): string => text.trimEnd().replace(/^/gm, "  ");

function describe(error: unknown): string {
  if (!(error instanceof ToolError)) {
    return `Unexpected: ${error instanceof Error ? error.stack : String(error)}\nNext: see what serves with curl -si on /health through nginx, then run this again with --verbose and report what it shows.`;
  }
  return [error.message, error.details && indent(error.details), `Next: ${error.next}`]
    .filter(Boolean)
    .join("\n");
}

/** A log onto stdout and stderr. With `verbose` there is no live line: docker's output would tear it. */
export function createLog(
  verbose: boolean,
  out: Terminal = process.stdout,
  err: Terminal = process.stderr,
): Log {
  const live = out.isTTY === true && !verbose;
  const started = performance.now();
  const done: string[] = [];
  let current = ""; // the live line, so that a message can be written above it

  const clear = (): void => {
    if (live && current) out.write("\r\u001b[K");
  };
  const draw = (): void => {
    if (live && current) out.write(`\r\u001b[K${current}`);
  };
  const stamp = (text: string): string => (live ? text : text.replace(/^/gm, `${new Date().toISOString()} `));
  const say = (to: Terminal, text: string): void => {
    clear();
    to.write(`${stamp(text)}\n`);
    draw();
  };

  return {
    async step(name, act) {
      const since = performance.now();
      const show = (): void => {
        current = `… ${name} ${seconds(since)}`;
        draw();
      };
      show();
      const timer = live ? setInterval(show, 200) : undefined;
      const end = (mark: string): void => {
        clearInterval(timer);
        clear();
        current = "";
        say(out, `${mark} ${name} (${seconds(since)})`);
      };
      try {
        const result = await act();
        end("✓");
        if (performance.now() - since > 50) done.push(`${name} ${seconds(since)}`);
        return result;
      } catch (error) {
        end("✗");
        throw error;
      }
    },
    info: (message) => say(out, message),
    warn: (message) => say(err, `Warning: ${message}`),
    failure: (error) => say(err, `Error: ${describe(error)}`),
    steps: () => [...done, `in all ${seconds(started)}`].join(" · "),
  };
}
