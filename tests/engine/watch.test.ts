import { type ChildProcess, spawn } from "node:child_process";
import { readdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import * as assert from "uvu/assert";
import { $, which } from "zx";
import { startRun } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch, waitFor } from "../../bench/testbed/scratch.ts";
import { scriptCommand } from "../../bench/testbed/script.ts";
import { proxyEngine } from "../engine-proxy.ts";
import { suite } from "../suite.ts";

/** A busy machine starts a container, or a screen, this late at most. */
const SECONDS = 60;

const watch = suite<{ stack: Scratch }>("status --watch");
watch.before(async (context) => {
  context.stack = await createReleasedScratch("watch");
  await context.stack.docker("rm", `${context.stack.project}-api-green`); // as before the first release to green
});
watch.after(({ stack }) => stack.remove());

/** A watch in progress. */
interface Watching {
  child: ChildProcess;
  output(): string;
  errors(): string;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

function start(command: string, args: readonly string[], env: Record<string, string>): Watching {
  const child = spawn(command, args, { env, stdio: ["pipe", "pipe", "pipe"] });
  let [output, errors] = ["", ""];
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  return {
    child,
    output: () => output,
    errors: () => errors,
    ended: new Promise((resolve) => child.on("close", (code, signal) => resolve({ code, signal }))),
  };
}

const [NODE, ...SCRIPT] = scriptCommand("status");

/** Its output is a pipe. */
const startLines = (stack: Scratch, env: Record<string, string> = {}): Watching =>
  start(NODE, [...SCRIPT, "--watch"], { ...stack.env, ...env });

/** Runs it in a pseudo-terminal of this size, and then prints its exit code, and whether the terminal's settings are as before. */
function startScreen(stack: Scratch, columns = 100, rows = 30): Watching {
  const command = `
    stty cols ${columns} rows ${rows}; before=$(stty -g)
    ${[NODE, ...SCRIPT].map((word) => `'${word}'`).join(" ")} --watch
    code=$?; echo "[exit $code]"; [ "$before" = "$(stty -g)" ] && echo "[same settings]"; exit $code`;
  return start("script", ["--quiet", "--return", "--command", command, "/dev/null"], {
    ...stack.env,
    TERM: "xterm",
    SHELL: "/bin/sh",
  });
}

/** The lines of the screen as it was drawn last. */
const lastScreen = ({ output }: Watching): string =>
  stripVTControlCharacters(output().split("\u001b[H").at(-1) ?? "").replaceAll("\r", "");

/** Waits until a text matches. Fails with the text. */
async function matches(what: RegExp, read: () => string): Promise<void> {
  await waitFor(String(what), async () => what.test(read()), SECONDS).catch((error: Error) => {
    throw new Error(`${error.message}\n${read()}`);
  });
}

const shows = (watching: Watching, what: RegExp): Promise<void> => matches(what, () => lastScreen(watching));

/** Ends a watch that a failed test has left. */
async function using(watching: Watching, act: (watching: Watching) => Promise<void>): Promise<void> {
  try {
    await act(watching);
  } finally {
    watching.child.kill("SIGTERM");
    await watching.ended;
  }
}

/** The pid of the watch itself, below `script` and a shell. */
async function pidOf({ child }: Watching): Promise<number> {
  const under = async (pid: number): Promise<number[]> => {
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
    const pids = children.trim().split(" ").filter(Boolean).map(Number);
    return [...pids, ...(await Promise.all(pids.map(under))).flat()];
  };
  for (const pid of await under(child.pid ?? 0))
    if ((await readFile(`/proc/${pid}/cmdline`, "utf8")).startsWith(`${NODE}\0`)) return pid;
  throw new Error("the watch does not run");
}

/** The processes that follow nginx's log. */
async function followers({ nginxContainer }: Scratch): Promise<number> {
  const lines = await Promise.all(
    (await readdir("/proc"))
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return lines.filter((line) => line.includes("\0logs\0--follow\0") && line.includes(nginxContainer)).length;
}

const leavesNothing = (stack: Scratch): Promise<void> =>
  waitFor("no docker logs is left", async () => (await followers(stack)) === 0);

/** Asks for /health through nginx ten times per second, until `end` is called. */
function startClient(stack: Scratch): () => void {
  const timer = setInterval(() => void stack.get().catch(() => undefined), 100);
  return () => clearInterval(timer);
}

/** All files of the stack outside the vault, with their times and content, and its containers. */
async function everything({ stateDir, folder, docker, project }: Scratch): Promise<unknown> {
  const files = [stateDir, join(folder, "nginx")].map(async (place) => [
    (await stat(place)).mtimeMs,
    ...(await Promise.all(
      (
        await readdir(place)
      ).map(async (name) => {
        const file = join(place, name);
        return [name, (await stat(file)).mtimeMs, await readFile(file, "utf8")];
      }),
    )),
  ]);
  const format = "{{.Names}} {{.ID}} {{.State}}";
  const { stdout } = await docker("ps", "--all", "--filter", `name=${project}`, "--format", format);
  return [await Promise.all(files), stdout.split("\n").sort()];
}

const onTerminal = which.sync("script", { nothrow: true })
  ? watch
  : (name: string): void => watch.skip(`${name}: needs the script command of util-linux`);

const [ENTER, LEAVE] = ["\u001b[?1049h", "\u001b[?25h\u001b[?1049l"];

/** What the terminal showed after the watch had given it back. */
function afterward(watching: Watching): string {
  const output = watching.output();
  assert.ok(output.startsWith(ENTER), output);
  const [, ...rest] = output.split(LEAVE);
  return rest.join().replaceAll("\r", "");
}

onTerminal("a release is shown with its step, its figures and its end; q leaves", ({ stack }) =>
  using(startScreen(stack), async (watching) => {
    await shows(watching, /^blue serves · .*\n\nblue .* serves\n.*\ngreen +(-|0)\/s 5xx 0 +absent\n/);
    const endClient = startClient(stack);
    const run = startRun(stack, "deploy", { VERIFY_SECONDS: "6" });
    await shows(watching, /^deploy blue → green, \d+ s\n… verify green through nginx \d+ s$/m);
    await shows(watching, /^green +[1-9][\d.]*\/s 5xx 0 +serves\n +[▁ ]*[▂-█]/m);
    assert.is((await run.ended).exitCode, 0);
    await shows(watching, /^last run: .* blue → green +done +[\d.]+ s {2}[1-9]\d* responses, 0 with 5xx$/m);
    await shows(watching, /^blue .* exited$/m);
    endClient();
    watching.child.stdin?.write("q");
    assert.is((await watching.ended).code, 0);
    assert.is(afterward(watching), "[exit 0]\n[same settings]\n");
    await leavesNothing(stack);
    const { stdout } = await stack.status();
    assert.match(stdout, /deploy +blue → green +done +[\d.]+ s {2}[1-9]\d* responses, 0 with 5xx/);
  }),
);

onTerminal(
  "a window that shrinks shows the most important lines; SIGTERM gives the terminal back",
  ({ stack }) =>
    using(startScreen(stack), async (watching) => {
      await shows(watching, /^green serves/);
      const pid = await pidOf(watching);
      await $`stty -F ${await readlink(`/proc/${pid}/fd/1`)} cols 20 rows 5`.quiet();
      await shows(watching, /^green serves · loop-\nblue .{15}\n .*\ngreen .{14}\n .*$/);
      for (const line of lastScreen(watching).split("\n")) assert.ok(line.length <= 20, line);
      process.kill(pid, "SIGTERM");
      assert.is((await watching.ended).code, 143);
      assert.is(afterward(watching), "[exit 143]\n[same settings]\n");
      await leavesNothing(stack);
    }),
);

watch("it changes no file and no container", async ({ stack }) => {
  const before = await everything(stack);
  await using(startLines(stack), async (watching) => {
    await matches(/(^\d{4}-\S+Z green serves · .*\n){5}/m, watching.output);
    watching.child.kill("SIGINT");
    assert.is((await watching.ended).code, 0);
    assert.is(watching.errors(), "");
    assert.not.match(watching.output(), /[^\P{C}\n]/u);
  });
  assert.equal(await everything(stack), before);
  await leavesNothing(stack);
});

watch("nginx and Docker may go away: it says so, and continues when they are back", async ({ stack }) => {
  const socket = join(stack.folder, "engine.sock");
  let proxy = await proxyEngine(socket);
  const endClient = startClient(stack);
  await using(startLines(stack, { DOCKER_HOST: `unix://${socket}` }), async (watching) => {
    const prints = (what: RegExp, from = watching.output().length): Promise<void> =>
      matches(what, () => watching.output().slice(from));
    const counts = / green [1-9][\d.]*\/s [^!\n]*serves[^!\n]*\n/;
    const countsAgain = async (): Promise<void> => {
      await sleep(6000); // until the mean has forgotten what was counted before
      await prints(counts);
      assert.is(await followers(stack), 1);
    };
    await prints(counts, 0);
    const succeed = async (command: ReturnType<Scratch["docker"]>): Promise<void> => {
      const { exitCode, stderr } = await command;
      assert.is(exitCode, 0, stderr);
    };
    // Started again only when it was missed: a restart may take less time than the second between two questions.
    for (const [takeAway, bringBack] of [
      [["stop", "--time", "1"], () => stack.docker("start", stack.nginxContainer)],
      [["rm", "--force"], () => stack.compose("up", "--detach", "--no-deps", "loop-nginx")],
    ] as const) {
      const from = watching.output().length;
      await succeed(stack.docker(...takeAway, stack.nginxContainer));
      await prints(/nginx does not answer · /, from);
      await succeed(bringBack());
      await countsAgain();
    }
    proxy.close();
    await prints(/! Docker does not answer: /);
    proxy = await proxyEngine(socket);
    await countsAgain();
    watching.child.kill("SIGHUP");
    assert.is((await watching.ended).code, 129);
    assert.is(watching.errors(), "");
  }).finally(() => {
    endClient();
    proxy.close();
  });
  await leavesNothing(stack);
});

watch("a closed pipe, as with `| head -1`, ends it with 0 and without a message", ({ stack }) =>
  using(startLines(stack), async (watching) => {
    await matches(/\n/, watching.output);
    watching.child.stdout?.destroy();
    assert.equal(await watching.ended, { code: 0, signal: null });
    assert.is(watching.errors(), "");
    await leavesNothing(stack);
  }),
);

watch("--json and --watch exclude each other", async ({ stack }) => {
  const wrong = await stack.status(["--json", "--watch"]);
  assert.equal([wrong.exitCode, wrong.stdout], [2, ""]);
  assert.match(wrong.stderr, "--json and --watch exclude each other");
});
watch.run();
