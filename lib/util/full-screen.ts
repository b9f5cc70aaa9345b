import type { ReadStream, WriteStream } from "node:tty";

/** The alternate screen, no cursor, and no wrapping: on a terminal that draws a character wider than expected, no line moves. */
const ENTER = "\u001b[?1049h\u001b[?25l\u001b[?7l";
const LEAVE = "\u001b[?7h\u001b[?25h\u001b[?1049l";

/** q, Ctrl-C and Ctrl-D: in raw mode, the terminal sends no signals. */
const LEAVING = ["q", "Q", "\u0003", "\u0004"];

/** A terminal that shows one screen of lines, until it is closed. */
export interface FullScreen {
  size(): { columns: number; rows: number };
  /** Replaces all lines; there are no more than rows, and none is wider than the screen. */
  draw(lines: readonly string[]): void;
  /** Gives the terminal back as it was. A second time does nothing. */
  close(): void;
}

interface How {
  input: ReadStream;
  output: WriteStream;
  /** Somebody pressed q or Ctrl-C, or the terminal is gone. */
  onLeave: () => void;
  onResize: () => void;
}

/** Takes over a terminal. It is given back by `close`, and at the latest when the process exits. */
export function openFullScreen({ input, output, onLeave, onResize }: How): FullScreen {
  const onKey = (keys: Buffer): void => {
    if (LEAVING.some((key) => keys.includes(key))) onLeave();
  };
  // A terminal without a size, as in some containers, reports 0.
  const size = () => ({ columns: output.columns || 80, rows: output.rows || 24 });
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    process.off("exit", close);
    output.off("resize", onResize);
    output.write(LEAVE);
    if (!input.isTTY) return;
    input.off("data", onKey).off("end", onLeave);
    input.setRawMode(false);
    input.pause();
  };
  process.once("exit", close); // an unexpected error must not leave a terminal without cursor and echo
  output.write(ENTER);
  output.on("resize", onResize);
  if (input.isTTY) {
    input.setRawMode(true);
    input.on("data", onKey).on("end", onLeave).on("error", onLeave);
  }
  return {
    size,
    draw: (lines) => {
      const all = Array.from({ length: size().rows }, (_, i) => `\u001b[2K${lines[i] ?? ""}`);
      if (open) output.write(`\u001b[H${all.join("\r\n")}`);
    },
    close,
  };
}
