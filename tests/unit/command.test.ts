import { test } from "uvu";
import * as assert from "uvu/assert";
import { DeadlineError } from "../../lib/errors.ts";
import { run } from "../../lib/run/command.ts";

test("arguments reach the command unchanged", async () => {
  const args = ["two words", "$(id)", "`id`", "'\"", "a\nb", "é", ""];
  const { stdout } = await run("printf", ["%s|", ...args], { deadline: 10 });
  assert.is(stdout, `${args.join("|")}|`);
});

test("a failing command does not throw; the caller checks its exit code", async () => {
  assert.is((await run("false", [], { deadline: 10 })).exitCode, 1);
  assert.is((await run("no-such-command", [], { deadline: 10 })).exitCode, 127);
});

test("a command that exceeds its deadline is killed with its children, and the error names it", async () => {
  const since = performance.now();
  try {
    await run("sh", ["-c", "sleep 30 & wait"], { deadline: 0.5 });
    assert.unreachable();
  } catch (error) {
    assert.instance(error, DeadlineError);
    assert.match((error as Error).message, "sh -c sleep 30 & wait did not end within 0.5 s");
  }
  assert.ok(performance.now() - since < 5000, "its child was not killed and kept the pipes open");
});

test("each line is reported while the command runs, and an aborted signal kills it", async () => {
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

test("a command gets /dev/null as standard input: it cannot prompt, and bash does not read ~/.bashrc", async () => {
  const { stdout } = await run("sh", ["-c", "readlink /proc/self/fd/0"], { deadline: 10 });
  assert.is(stdout.trim(), "/dev/null");
});
test.run();
