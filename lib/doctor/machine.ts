import { closeSync, openSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { which } from "zx/core";
import { CHECK_DOCKER, docker, expectSuccess } from "../docker/cli.ts";
import { dataFolder, expectCompose, expectEngine } from "../docker/engine.ts";
import { taggedImages } from "../docker/image.ts";
import { runningColors } from "../engine/colors.ts";
import { checkDiskSpace, gib } from "../release/disk.ts";
import { expectMemory, freeMemory, mib } from "../release/memory.ts";
import type { Context } from "../run/context.ts";
import { MECHANISMS, tryLock } from "../run/flock.ts";
import { isAtLeast } from "../util/version.ts";
import { ok, problem, type Verdict, warning } from "./finding.ts";

/** Takes the kernel's lock, as a run does, but on a file that no run uses. */
export async function checkLockProgram(): Promise<Verdict> {
  const file = join(tmpdir(), `loop-doctor-${process.pid}`);
  const descriptor = openSync(file, "wx+", 0o600);
  unlinkSync(file); // nothing is left, even if this process is killed
  try {
    await tryLock(descriptor);
    const found = MECHANISMS.find(({ command }) => which.sync(command, { nothrow: true }));
    return ok(`${found?.command}`);
  } catch (error) {
    return problem(
      error instanceof Error ? error.message : String(error),
      "Install flock (package util-linux), perl or python3.",
    );
  } finally {
    closeSync(descriptor);
  }
}

/** Releases use options of this version. */
const OLDEST_ENGINE = [20, 10];

/** Throws DockerError when the engine does not answer. */
export async function checkEngine(context: Context): Promise<Verdict> {
  const version = await expectEngine(context);
  if (!isAtLeast(version, OLDEST_ENGINE))
    return problem(
      `Docker ${version} is too old`,
      "Update it to 20.10 or newer (on the NAS: Container Manager).",
    );
  return ok(`Docker ${version}`);
}

/** Throws DockerError, ComposeFileError, and UsageError when containers can write to a compose file. */
export const checkCompose = async (context: Context): Promise<Verdict> =>
  ok(`${await expectCompose(context)}, reads ${context.settings.composeFiles.join(", ")}`);

/** Does the kernel enforce the limits of the compose file? Docker only warns if it does not. Throws DockerError. */
export async function checkLimits(context: Context): Promise<Verdict> {
  const output = await docker(context, [
    "info",
    "--format",
    "{{.MemoryLimit}} {{.PidsLimit}} {{.SwapLimit}}",
  ]);
  expectSuccess(output, "asking for its limits", CHECK_DOCKER);
  const [memory, pids, swap] = output.stdout.trim().split(" ");
  const unsupported = [
    ...(memory === "true" ? [] : ["memory (API_MEMORY)"]),
    ...(pids === "true" ? [] : ["processes (API_PIDS)"]),
  ];
  if (unsupported.length > 0)
    return warning(
      `this kernel does not limit ${unsupported.join(" and ")}: one container can exhaust this machine`,
      "Releases still work. Watch what the containers use: docker stats.",
    );
  return ok(
    swap === "true"
      ? "memory, swap and processes"
      : "memory and processes; swap is not limited by this kernel",
  );
}

/** Throws MemoryError when a release would not start a second color. */
export async function checkMemory(context: Context): Promise<Verdict> {
  for (const color of await runningColors(context)) await expectMemory(context, color);
  const free = await freeMemory();
  if (free === undefined) return ok("unknown: this host cannot see it");
  const { set, bytes } = context.settings.apiMemory;
  const words = `${mib(free)} free, swap included`;
  if (free < bytes)
    return warning(
      `${words}; a second color may use API_MEMORY=${set}`,
      "Stop other programs, add swap, or lower API_MEMORY to what the API needs.",
    );
  return ok(words);
}

/** What an image may need before there is one. */
const FIRST_IMAGE_BYTES = 2 ** 30;

/** A release needs room for its image beside that of the other color, and for as much again during the build. */
const IMAGES = 3;

/** Throws DiskSpaceError when a release would not build. */
export async function checkDisk(context: Context): Promise<Verdict> {
  const images = await taggedImages(context);
  const { bytes, words } = await checkDiskSpace(context, images, await dataFolder(context));
  const { blue, green } = images;
  if (bytes === undefined) return ok(words);
  const largest = Math.max(blue?.bytes ?? 0, green?.bytes ?? 0) || FIRST_IMAGE_BYTES;
  if (bytes < IMAGES * largest)
    return warning(
      `${words}; two images and a build need about ${gib(IMAGES * largest)}`,
      "Free some space: docker system df shows what Docker uses.",
    );
  return ok(words);
}
