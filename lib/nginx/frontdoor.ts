import { statSync } from "node:fs";
import { type Color, isColor } from "../color.ts";
import { type Container, runningColors } from "../docker/container.ts";
import { ACT_SECONDS } from "../docker/engine.ts";
import {
  type Down,
  downAuth,
  downNginx,
  inspectAuth,
  inspectFrontDoor,
  inspectNginx,
  startService,
} from "../docker/frontdoor.ts";
import { DockerError, InterruptedError, ToolError, UsageError } from "../errors.ts";
import { type Answer, probeHealth } from "../health.ts";
import { checkServicePort } from "../port.ts";
import type { Settings } from "../settings.ts";
import type { Stack } from "../stack.ts";
import { awaitThat } from "../wait.ts";
import { keyHeaders } from "./key.ts";
import { CONFIGURATION_FOLDER } from "./workers.ts";
import { writeConfiguration } from "./written.ts";

/** How long, in seconds, the first look-up of the colors' addresses may take after a start. */
const FIRST_LOOKUP_SECONDS = 5;

/** How long, in seconds, nginx may take from the signal to serving with the new upstream. */
export const RELOAD_SECONDS = 10;

/** Asks /health as a client would, through nginx. Never throws. */
export const askFrontDoor = ({ nginxUrl, health }: Settings): Promise<Answer> =>
  probeHealth(`${nginxUrl}/health`, health.timeout);

/** Which color serves, proven by a healthy answer through nginx; undefined when none does. */
export async function servingColor({ settings }: Stack): Promise<Color | undefined> {
  const { healthy, color } = await askFrontDoor(settings);
  return healthy && isColor(color) ? color : undefined;
}

/**
 * Asks nginx itself, not the API, with the key of this run unless told otherwise: 204 where it knows the key, or knows no keys
 * at all; 404 where it does not know this one. Its color is in each. Never throws.
 */
export const askLoaded = async (settings: Settings, headers?: Record<string, string>): Promise<Answer> =>
  probeHealth(
    `${settings.nginxUrl}/_loop/color`,
    settings.health.timeout,
    headers ?? (await keyHeaders(settings)),
  );

/** Which color nginx has loaded, as it says itself; undefined when it does not answer. Never throws. */
export const loadedColor = async (settings: Settings): Promise<string | undefined> =>
  (await askLoaded(settings)).color;

/**
 * Brings up nginx and auth where they do not run, and waits until nginx answers, and serves where a color runs:
 * asked too early what serves, it would seem that nothing does. Throws DockerError, UsageError, PortConflictError, ConfigurationError.
 */
export async function bringUpFrontDoor(stack: Stack): Promise<void> {
  const { nginx, auth } = await inspectFrontDoor(stack);
  expectOwnPort(stack, nginx);
  expectOwnFolder(stack, nginx);
  const downs = [downNginx(stack, nginx), downAuth(stack, auth)].filter((down) => down !== undefined);
  for (const down of downs) await checkServicePort(stack, down);
  await writeConfiguration(stack, nginx.status === "running");
  for (const down of downs) await bringUp(stack, down);
  if (downs.length > 0) await stack.step("wait until nginx serves", () => awaitFrontDoor(stack));
}

/**
 * The same for the way back, which needs nginx only: an auth that does not start is a warning, and is not built.
 * Throws DockerError, UsageError, PortConflictError, ConfigurationError for nginx.
 */
export async function bringUpForWayBack(stack: Stack): Promise<void> {
  const nginx = await inspectNginx(stack);
  expectOwnPort(stack, nginx);
  expectOwnFolder(stack, nginx);
  const down = downNginx(stack, nginx);
  if (down) await checkServicePort(stack, down);
  await writeConfiguration(stack, nginx.status === "running");
  if (down) {
    await bringUp(stack, down);
    await stack.step("wait until nginx serves", () => awaitFrontDoor(stack));
  }
  try {
    const auth = downAuth(stack, await inspectAuth(stack), ["--no-build", "--pull", "never"]);
    if (auth) await checkServicePort(stack, auth);
    if (auth) await bringUp(stack, auth, ACT_SECONDS);
  } catch (error) {
    if (!(error instanceof ToolError) || error instanceof InterruptedError) throw error;
    const { message, details } = error;
    stack.log.warn(
      [`auth could not be started; the rollback continues without it: ${message}`, details].join("\n").trim(),
    );
  }
}

async function bringUp(stack: Stack, down: Down, deadline?: number): Promise<void> {
  stack.log.info(`${down.name} does not run: bringing it up`);
  await stack.step(`bring up ${down.name}`, () => startService(stack, down, deadline), [down.command]);
}

/** All that is asked of nginx must come from this stack's own: another's answers would make it stop what serves here. */
function expectOwnPort({ settings, log }: Stack, nginx: Container): void {
  const { nginxPort, nginxBind, nginxUrl, nginxContainer, dockerCmd } = settings;
  if (nginx.status === "absent") return;
  const anew = `recreate the nginx container at a quiet time: ${dockerCmd} rm --force ${nginxContainer}, and run this again`;
  if (!nginx.ports.includes(nginxPort)) {
    throw new UsageError(
      `NGINX_PORT is ${nginxPort}, but ${nginxContainer} was made for ${nginx.ports.join(", ")}`,
      { next: `Set it back, or ${anew}. Nothing was changed.` },
    );
  }
  const everywhere = nginx.binds.some((address) => ["", "0.0.0.0"].includes(address));
  const { hostname } = new URL(nginxUrl);
  if (!everywhere && !nginx.binds.includes(hostname)) {
    throw new UsageError(
      `NGINX_BIND is ${nginxBind ?? "not set"}, but ${nginxContainer} was made for ${nginx.binds.join(", ")}`,
      { next: `Set it back, or ${anew}. Nothing was changed.` },
    );
  }
  if (everywhere && nginxBind !== undefined && nginxBind !== "0.0.0.0")
    log.warn(`NGINX_BIND is ${nginxBind}, but ${nginxContainer} still listens on all addresses: ${anew}`);
}

/**
 * The link that a run changes must be the one that nginx reads. Another checkout with this project's name also has a lock
 * and a record of its own: the two would release over each other.
 */
function expectOwnFolder({ settings }: Stack, nginx: Container): void {
  const { nginxFolder, nginxContainer, dockerCmd, project } = settings;
  const mounted = nginx.folders[CONFIGURATION_FOLDER]?.replace(/^\/host_mnt(?=\/)/, ""); // as Docker Desktop has it
  if (mounted === undefined || isSameFolder(mounted, nginxFolder)) return;
  throw new UsageError(
    `${nginxContainer} mounts the folder ${mounted}, but this checkout has ${nginxFolder}`,
    {
      details: `Two checkouts drive the project ${project}, or one was moved.`,
      next: `Run this in the other checkout, or give this one another COMPOSE_PROJECT_NAME. If this one was moved, recreate the nginx container at a quiet time: ${dockerCmd} rm --force ${nginxContainer}, and run this again. Nothing was changed.`,
    },
  );
}

/** The same folder may have several names. */
function isSameFolder(one: string, other: string): boolean {
  if (one === other) return true;
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

async function awaitFrontDoor(stack: Stack): Promise<void> {
  const { dockerCmd, nginxContainer } = stack.settings;
  const answers = async () => (await loadedColor(stack.settings)) !== undefined;
  if (!(await awaitThat(RELOAD_SECONDS, answers))) {
    throw new DockerError(`${nginxContainer} was started, but nginx does not answer`, {
      next: `See why with: ${dockerCmd} logs --tail 20 ${nginxContainer}`,
    });
  }
  if ((await runningColors(stack)).length === 0) return;
  await awaitThat(FIRST_LOOKUP_SECONDS, async () => (await servingColor(stack)) !== undefined);
}
