import { EventEmitter } from "node:events";
import type { ReadStream, WriteStream } from "node:tty";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openFullScreen } from "../../lib/util/full-screen.ts";

/** A terminal that remembers what was written to it, and whether it is raw. */
function terminal(columns = 20, rows = 3) {
  let [written, raw, left, resized] = ["", false, 0, 0];
  const input = Object.assign(new EventEmitter(), {
    isTTY: true,
    setRawMode: (mode: boolean) => {
      raw = mode;
    },
    pause: () => undefined,
  });
  const output = Object.assign(new EventEmitter(), {
    columns,
    rows,
    write: (text: string) => {
      written += text;
    },
  });
  const screen = openFullScreen({
    input: input as unknown as ReadStream,
    output: output as unknown as WriteStream,
    onLeave: () => left++,
    onResize: () => resized++,
  });
  const seen = () => ({ written, raw, left, resized });
  return { input, output, screen, seen };
}

const ENTER = "\u001b[?1049h\u001b[?25l\u001b[?7l";
const LEAVE = "\u001b[?7h\u001b[?25h\u001b[?1049l";

test("closing gives the terminal back once: cursor, wrapping, main screen, cooked mode", () => {
  const { screen, seen } = terminal();
  assert.is(seen().raw, true);
  assert.is(seen().written, ENTER);
  screen.close();
  screen.close();
  screen.draw(["late"]);
  assert.is(seen().written, `${ENTER}${LEAVE}`);
  assert.is(seen().raw, false);
});

test("the end of the process gives it back too, as after an unexpected error", () => {
  const before = process.listeners("exit");
  const { seen } = terminal();
  const added = process.listeners("exit").filter((listener) => !before.includes(listener));
  for (const listener of added) listener(1);
  assert.ok(seen().written.endsWith(LEAVE));
  assert.equal([seen().raw, process.listeners("exit")], [false, before]);
});

test("a screen replaces every row, and moves no line", () => {
  const { screen, seen } = terminal();
  screen.draw(["a", "b"]);
  assert.ok(seen().written.endsWith("\u001b[H\u001b[2Ka\r\n\u001b[2Kb\r\n\u001b[2K"));
  screen.close();
});

test("q, Ctrl-C, and the end of the terminal leave; other keys do not", () => {
  const { input, screen, seen } = terminal();
  for (const key of ["x", "\u001b[A", "\u001a"]) input.emit("data", Buffer.from(key));
  assert.is(seen().left, 0);
  for (const key of ["q", "Q", "\u0003", "\u0004"]) input.emit("data", Buffer.from(key));
  input.emit("end");
  input.emit("error", new Error("EIO"));
  assert.is(seen().left, 6);
  screen.close();
});

test("a resize is reported until it is closed; a terminal without a size has 80 columns and 24 rows", () => {
  const { output, screen, seen } = terminal(0, 0);
  assert.equal(screen.size(), { columns: 80, rows: 24 });
  output.emit("resize");
  screen.close();
  output.emit("resize");
  assert.is(seen().resized, 1);
});
test.run();
