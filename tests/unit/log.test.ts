import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../lib/errors.ts";
import { createLog } from "../../lib/run/log.ts";

function terminal(isTTY: boolean) {
  let text = "";
  return { isTTY, write: (more: string) => (text += more), text: () => text };
}

const STAMP = "\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z";

test("without a terminal, each event is one time-stamped line without control characters", async () => {
  const [out, err] = [terminal(false), terminal(false)];
  const log = createLog({ out: out, err: err });
  await log.step("build green", async () => log.info("two\nlines"));
  assert.match(
    out.text(),
    new RegExp(`^${STAMP} two\n${STAMP}   lines\n${STAMP} ✓ build green \\(0\\.0 s\\)\n$`),
  );
  assert.not.match(out.text(), "\u001b");
  assert.is(err.text(), "");
});

/** Output by which a container could rewrite the owner's terminal or forge a line of this tool. */
const FORGED = "x\u001b[2J\u009b1A\r\u007f\u202e\n2030-01-01T00:00:00.000Z ✓ mark green as active";

test("control characters in foreign text are escaped, and a foreign line cannot pass for one of this tool", async () => {
  const file: string[] = [];
  const [out, err] = [terminal(false), terminal(false)];
  const log = createLog({ out, err, file: (line) => file.push(line) });
  log.info(FORGED);
  log.warn(FORGED);
  log.summary(FORGED);
  log.failure(new UsageError(FORGED, { details: FORGED, next: FORGED }));
  log.failure(new Error(FORGED));
  for (const text of [out.text() + err.text(), file.join("\n")]) {
    assert.is(text.split("x\\x1b[2J\\x9b1A\\x0d\\x7f\\u202e\n").length, 8, text);
    assert.not.match(text, /[^\P{C}\n]/u);
    assert.match(text, new RegExp(`^${STAMP}   2030-01-01T00:00:00.000Z ✓ mark`, "m"));
    assert.not.match(text, new RegExp(`^(${STAMP} )?\\d{4}-01-01T[\\d:.]+Z ✓`, "m"));
  }
});

test("on a terminal, the progress of a step is one line without control characters", async () => {
  const out = terminal(true);
  const log = createLog({ out, err: terminal(true) });
  await log.step("build green", async () => {
    log.progress(FORGED);
    log.warn("redraws");
    await sleep(250);
  });
  assert.match(out.text(), "x\\x1b[2J\\x9b1A\\x0d\\x7f\\u202e 2030");
  assert.not.match(out.text(), "\u001b[2J");
  assert.not.match(out.text(), "\u009b");
});

test("on a terminal, messages are written above the live line", async () => {
  const out = terminal(true);
  delete process.env.NO_COLOR; // CI sets it
  const log = createLog({ out: out, err: terminal(true) });
  await log.step("build green", async () => log.info("message"));
  // The text that remains on the screen: of each line, the part after it was last cleared.
  const shown = out
    .text()
    .split("\n")
    .map((line) => line.split("\r\u001b[K").at(-1))
    .join("\n");
  assert.is(shown, "message\n\u001b[32m✓\u001b[39m build green (0.0 s)\n");
  assert.match(out.text(), "… build green 0.0 s");
});

test("NO_COLOR is respected", async () => {
  const before = process.env.NO_COLOR;
  process.env.NO_COLOR = "1";
  const out = terminal(true);
  await createLog({ out, err: terminal(true) }).step("build green", async () => undefined);
  if (before === undefined) delete process.env.NO_COLOR;
  else process.env.NO_COLOR = before;
  assert.match(out.text(), "✓ build green");
  assert.not.match(out.text(), "\u001b[32m");
});

test("a failed step is reported as failed, passes its error on, and has no duration", async () => {
  const out = terminal(false);
  const log = createLog({ out: out, err: terminal(false) });
  try {
    await log.step("build green", () => Promise.reject(new Error("boom")));
    assert.unreachable();
  } catch (error) {
    assert.is((error as Error).message, "boom");
  }
  assert.match(out.text(), "✗ build green");
  assert.equal(log.durations(), {});
});

test("a failure is printed to stderr: the error, its details, the next step", () => {
  const [out, err] = [terminal(false), terminal(false)];
  createLog({ out: out, err: err }).failure(
    new UsageError("Wrong settings", { details: "A is 1", next: "Correct it." }),
  );
  const lines = err
    .text()
    .trimEnd()
    .split("\n")
    .map((line) => line.replace(new RegExp(`^${STAMP} `), ""));
  assert.equal(lines, ["Error: Wrong settings", "  A is 1", "Next: Correct it."]);
  assert.is(out.text(), "");
});
test.run();
