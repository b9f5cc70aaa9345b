import { setTimeout as sleep } from "node:timers/promises";
import { EXIT, SIGNALS } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { openFullScreen } from "../util/full-screen.ts";
import { startWatch } from "./watch.ts";
import { lineOf, painted, screenOf } from "./watch-text.ts";

/** Milliseconds between two screens. */
const EVERY_MS = 1000;

/**
 * Shows what runs once per second: on a terminal as one screen, elsewhere as one line, until q, Ctrl-C, a signal, or the end of
 * the terminal or pipe. Changes nothing. Returns the exit code.
 */
export async function showWatch(context: Context): Promise<number> {
  const { stdin: input, stdout: output, env } = process;
  const end = new AbortController();
  let exitCode: number = EXIT.done;
  const leave = (): void => end.abort();
  for (const [name, code] of Object.entries(SIGNALS))
    process.once(name, () => {
      if (name !== "SIGINT") exitCode = code;
      leave();
    });
  // The reader of a pipe has seen enough (`| head`), or the terminal was closed.
  for (const stream of [output, process.stderr]) stream.on("error", leave);

  const watch = startWatch(context);
  const isScreen = output.isTTY && env.TERM !== "dumb";
  const screen = isScreen
    ? openFullScreen({ input, output, onLeave: leave, onResize: () => show() })
    : undefined;
  const show = (): void => {
    if (!screen) return void output.write(`${lineOf(watch.look())}\n`);
    const lines = screenOf(watch.look(), screen.size());
    screen.draw(env.NO_COLOR ? lines : lines.map(painted));
  };
  const { signal } = end;
  try {
    await watch.ready;
    while (!signal.aborted) {
      show();
      await sleep(EVERY_MS, undefined, { signal }).catch(() => undefined);
    }
  } finally {
    screen?.close();
    await watch.stop();
  }
  return exitCode;
}
