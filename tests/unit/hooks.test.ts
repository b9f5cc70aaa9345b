import { chmod, chown, mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { HookError, UsageError } from "../../lib/errors.ts";
import { checkHooks, runFailureHook, runHook } from "../../lib/release/hooks.ts";
import { type Context, readOnlyContext, stepsOf } from "../../lib/run/context.ts";
import { noLock } from "../../lib/run/lock.ts";
import { createLog } from "../../lib/run/log.ts";
import { strangeOwner } from "../../lib/run/trust.ts";
import { loadSettings } from "../../lib/settings.ts";

const folder = await tempFolder("hooks");
const [HOOKS_PATH, VAULT_PATH] = [join(folder, "hooks"), join(folder, "vault")];
await mkdir(VAULT_PATH);

/** A run with these hooks; `text` is its output. */
async function runWith(hooks: Record<string, string>, verb: "deploy" | "rollback" = "deploy") {
  await rm(HOOKS_PATH, { recursive: true, force: true });
  await mkdir(HOOKS_PATH, { mode: 0o755 });
  for (const [name, script] of Object.entries(hooks))
    await writeFile(join(HOOKS_PATH, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  let text = "";
  const log = createLog({
    quiet: true,
    file: (line) => (text += `${line}\n`),
    err: { write: () => undefined },
  });
  const base = readOnlyContext(
    loadSettings({ ...process.env, HOOKS_PATH, VAULT_PATH }, "/no/such/file"),
    log,
  );
  const options = { ...base.options, dryRun: false };
  const context: Context = {
    ...base,
    options,
    lock: {
      ...base.lock,
      recorded: () => ({ ...noLock(verb, undefined).recorded(), from: "blue", to: "green" }),
    },
    ...stepsOf(options, log, base.signal),
  };
  return { context, text: () => text };
}

async function refusalOf({ context }: { context: Context }): Promise<UsageError> {
  try {
    await checkHooks(context);
  } catch (error) {
    assert.instance(error, UsageError);
    return error as UsageError;
  }
  return assert.unreachable("it was not refused") as never;
}

test("missing hooks are skipped without a step", async () => {
  const run = await runWith({});
  await checkHooks(run.context);
  await runHook(run.context, "pre-switch");
  assert.not.match(run.text(), "run the hook");
});

test("a hook that others could have written is refused, and so is one in a folder of theirs", async () => {
  const run = await runWith({ "on-failure": "true" });
  await checkHooks(run.context);
  await chmod(HOOKS_PATH, 0o775);
  assert.match((await refusalOf(run)).message, `${HOOKS_PATH}: its mode is 775`);
  await chmod(HOOKS_PATH, 0o755);
  await chmod(join(HOOKS_PATH, "on-failure"), 0o757);
  assert.match((await refusalOf(run)).message, `${HOOKS_PATH}/on-failure: its mode is 757`);

  await chmod(join(HOOKS_PATH, "on-failure"), 0o755);
  if (process.getuid?.() === 0) {
    await chown(join(HOOKS_PATH, "on-failure"), 54_321, 0);
    assert.match((await refusalOf(run)).message, `${HOOKS_PATH}/on-failure: it belongs to the user 54321`);
  }
  const own = await stat(HOOKS_PATH);
  assert.is(strangeOwner(own), undefined);
  assert.match(strangeOwner({ ...own, uid: 54_321 } as typeof own) ?? "", "belongs to the user 54321");
});

test("a link is refused when its target is not trusted: in the vault, in a folder of others, or nowhere", async () => {
  const run = await runWith({});
  const link = join(HOOKS_PATH, "pre-switch");
  const [shared, inVault] = [join(folder, "shared"), join(VAULT_PATH, "hook")];
  await mkdir(shared);
  await chmod(shared, 0o777);
  for (const file of [inVault, join(shared, "hook")]) await writeFile(file, "#!/bin/sh\n", { mode: 0o755 });
  const linkInVault = join(VAULT_PATH, "link");
  await symlink("/bin/true", linkInVault);
  for (const [target, why] of [
    [inVault, "containers can write to it"],
    [linkInVault, "containers can write to it"],
    [join(shared, "hook"), `${shared}: its mode is 777`],
    [join(folder, "nowhere"), "ENOENT"],
  ] as const) {
    await rm(link, { force: true });
    await symlink(target, link);
    assert.match((await refusalOf(run)).message, why);
  }

  await chmod(shared, 0o755);
  await rm(link);
  await symlink(join(shared, "hook"), link);
  await checkHooks(run.context);
  await chmod(HOOKS_PATH, 0o777);
  assert.match(
    (await refusalOf(run)).message,
    `${HOOKS_PATH}: its mode is 777`,
    "others can replace the link",
  );
});

test("a folder of hooks that is a link is refused: whoever can replace the link decides what runs", async () => {
  const run = await runWith({ "pre-switch": "exit 0" });
  const elsewhere = join(folder, "elsewhere");
  await rename(HOOKS_PATH, elsewhere);
  await symlink(elsewhere, HOOKS_PATH);
  assert.match((await refusalOf(run)).message, `${HOOKS_PATH}: it is a symbolic link`);
  await rm(HOOKS_PATH);
  await rm(elsewhere, { recursive: true });
});

test("a hook that can stop the run must be executable; a rollback does not look at the hooks of a release", async () => {
  const hooks = { "pre-build": "true", "post-deploy": "true" };
  const release = await runWith(hooks);
  await chmod(join(HOOKS_PATH, "pre-build"), 0o644);
  assert.match((await refusalOf(release)).message, `The hook ${HOOKS_PATH}/pre-build is not executable`);
  const rollback = await runWith(hooks, "rollback");
  await chmod(join(HOOKS_PATH, "pre-build"), 0o644);
  await checkHooks(rollback.context);
});

test("a failed hook before the build or the switch is an error with its output", async () => {
  for (const hook of ["pre-build", "pre-switch"] as const) {
    const { context } = await runWith({ [hook]: "echo not today; exit 3" });
    try {
      await runHook(context, hook);
      assert.unreachable();
    } catch (error) {
      assert.instance(error, HookError);
      const { message, details, exitCode } = error as HookError;
      assert.equal([message, exitCode], [`Hook ${hook} failed`, 1]);
      assert.match(details, /^exit code 3; the last lines of its output:\nnot today$/);
    }
  }
});

test("another failed hook is a warning, also one that is not executable or was replaced during the run", async () => {
  const failing = await runWith({ "post-deploy": "exit 3" });
  await runHook(failing.context, "post-deploy");
  assert.match(failing.text(), "Warning: the hook post-deploy failed: exit code 3");
  await chmod(join(HOOKS_PATH, "post-deploy"), 0o644);
  await runHook(failing.context, "post-deploy");
  assert.match(failing.text(), "Warning: the hook post-deploy failed: exit code 126");
  await chmod(HOOKS_PATH, 0o777);
  await runHook(failing.context, "post-deploy");
  assert.match(failing.text(), `Warning: the hook post-deploy failed: ${HOOKS_PATH}: its mode is 777`);
});

test("on-failure gets the failure, whatever is in its message", async () => {
  const out = join(folder, "failure");
  const { context, text } = await runWith({ "on-failure": `env | grep ^LOOP_ | sort >${out}` });
  await runFailureHook(context, { result: "HealthError", message: "a NUL \0 and\nmore", exitCode: 1 });
  assert.not.match(text(), "Warning");
  const lines = (await readFile(out, "utf8")).split("\n");
  for (const line of [
    "LOOP_COLOR=green",
    "LOOP_EXIT_CODE=1",
    "LOOP_IMAGE=loop-api:green",
    "LOOP_MESSAGE=a NUL \\x00 and",
    "LOOP_PREVIOUS_URL=",
    "LOOP_RESULT=HealthError",
    "LOOP_URL=http://127.0.0.1:8085",
    "LOOP_VERB=deploy",
  ])
    assert.ok(lines.includes(line), `${line} is not in ${lines}`);
});
test.run();
