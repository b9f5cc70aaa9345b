import { appendFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { readStep, stepIn } from "../../lib/run/current-step.ts";
import { createLog } from "../../lib/run/log.ts";

const at = (second: number): string => new Date(Date.UTC(2026, 10, 25, 3, 0, second)).toISOString();
const ms = (second: number): number => Date.parse(at(second));

test("a step is in progress from its first line until it has ended", () => {
  const begun = `${at(1)} ✓ check Docker (0.1 s)\n${at(2)} … build blue\n`;
  assert.equal(stepIn(begun, ms(0)), { name: "build blue", sinceMs: ms(2) });
  assert.equal(stepIn(`${begun}${at(3)} Warning: X\n`, ms(0))?.name, "build blue");
  const again = `${begun}${at(32)} … build blue 30.0 s · Step 3/9 1.5 s\n`;
  assert.equal(stepIn(again, ms(0)), { name: "build blue", sinceMs: ms(2) });
  for (const mark of ["✓", "✗"])
    assert.is(stepIn(`${begun}${at(9)} ${mark} build blue (7.0 s)\n`, ms(0)), undefined);
});

test("a step of an earlier, killed run is not the step of this one", () => {
  assert.is(stepIn(`${at(2)} … build blue\n`, ms(3)), undefined);
  assert.is(stepIn("", ms(0)), undefined);
});

test("the log of a run says which step is in progress, and foreign text in it cannot pass for one", async () => {
  const folder = await tempFolder("step");
  const file = join(folder, "log");
  try {
    assert.is(await readStep(file, 0), undefined, "no file");
    await writeFile(file, `${"x".repeat(200_000)}\n`);
    const lines: string[] = [];
    const silent = { write: () => undefined };
    const log = createLog({ file: (line) => lines.push(line), out: silent, err: silent });
    await log.step("build blue", async () => {
      log.warn(`x\n${at(59)} … mark green as active`);
      await appendFile(file, `${lines.join("\n")}\n`);
      const step = await readStep(file, 0);
      assert.is(step?.name, "build blue");
      assert.ok(Math.abs(Date.now() - (step?.sinceMs ?? 0)) < 60_000);
    });
    await writeFile(file, `${lines.join("\n")}\n`);
    assert.is(await readStep(file, 0), undefined, "it has ended");
  } finally {
    await rm(folder, { recursive: true });
  }
});
test.run();
