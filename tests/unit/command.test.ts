import { test } from "uvu";
import * as assert from "uvu/assert";
import { DeadlineError } from "../../lib/errors.ts";
import { run } from "../../lib/run/command.ts";

test("arguments reach the command as they are", async () => {
  const args = ["two words", "$(id)", "`id`", "'\"", "a\nb", "é", ""];
  const { stdout } = await run("printf", ["%s|", ...args], { deadline: 10 });
  assert.is(stdout, `${args.join("|")}|`);
});

test("the exit code is the caller's to judge", async () => {
  assert.is((await run("false", [], { deadline: 10 })).exitCode, 1);
  assert.is((await run("no-such-command", [], { deadline: 10 })).exitCode, 127);
});

test("what does not end in its time is killed, its children too, and named", async () => {
  const since = performance.now();
  try {
    await run("sh", ["-c", "sleep 30 & wait"], { deadline: 0.5 });
    assert.unreachable();
  } catch (error) {
    assert.instance(error, DeadlineError);
    assert.match((error as Error).message, "sh -c sleep 30 & wait did not end within 0.5 s");
  }
  assert.ok(performance.now() - since < 5000, "its child held the pipes open");
});

test("a signal ends it; lines are told while it runs", async () => {
  const end = new AbortController();
  const lines: string[] = [];
  const { signal } = await run("sh", ["-c", "echo one; sleep 30"], {
    deadline: undefined,
    signal: end.signal,
    onLine: (line) => {
      lines.push(line);
      end.abort();
    },
  });
  assert.is(signal, "SIGKILL");
  assert.equal(lines, ["one"]);
});

test("no command reads the owner's ~/.bashrc, nor has a terminal to ask on", async () => {
  const { stdout } = await run("sh", ["-c", "readlink /proc/self/fd/0"], { deadline: 10 });
  assert.is(stdout.trim(), "/dev/null");
});
test.run();
