import { statSync } from "node:fs";
import { hasAuth } from "../api.ts";
import type { Color } from "../color.ts";
import { ACT_SECONDS } from "../docker/cli.ts";
import type { Container } from "../docker/container.ts";
import { taggedImages } from "../docker/image.ts";
import { authOf } from "../docker/names.ts";
import {
  inspectAuth,
  type StoppedService,
  startService,
  stoppedAuth,
  stoppedNginx,
} from "../docker/services.ts";
import { apiOfImage, apisOf, recordApis } from "../engine/apis.ts";
import { runningColors } from "../engine/colors.ts";
import { engineOf } from "../engine/engine.ts";
import { inspectServices, inspectStack } from "../engine/stack.ts";
import { DockerError, InterruptedError, ToolError, UsageError } from "../errors.ts";
import { writeConfiguration } from "../nginx/configuration.ts";
import { newestLoaded, RELOAD_SECONDS, servingColor } from "../nginx/probe.ts";
import { CONFIGURATION_FOLDER } from "../nginx/workers.ts";
import type { Context } from "../run/context.ts";
import { pollUntil } from "../util/poll.ts";
import { createFoldersForRollback } from "./oauth-folder.ts";
import { checkServicePort } from "./port.ts";

/** Seconds that nginx may take to resolve the colors' addresses after a start. */
const FIRST_LOOKUP_SECONDS = 5;

/**
 * Starts nginx and auth if they do not run, and waits until nginx answers and, if a color runs, serves it. Asked any sooner,
 * nginx would seem to serve neither color. Before anything asks a color, records how its API is reached. Throws DockerError,
 * UsageError, PortConflictError, ConfigurationError, StateFileError.
 */
export async function startServices(context: Context): Promise<void> {
  const { nginx, auth, ...colors } = await inspectServices(context);
  expectOwn(context, nginx);
  await engineOf(context).checkPlace(context);
  await recordApis(context, colors);
  const needsAuth = context.settings.api.auth === "on";
  if (!needsAuth && !hasAuth(apisOf(context.settings, colors))) reportUnusedAuth(context, auth);
  const stopped = [stoppedNginx(context, nginx), needsAuth ? stoppedAuth(context, auth) : undefined].filter(
    (service) => service !== undefined,
  );
  for (const service of stopped) await checkServicePort(context, service);
  await writeConfiguration(context, nginx.status === "running");
  for (const service of stopped) await start(context, service);
  await engineOf(context).connect(context, nginx);
  if (stopped.length > 0) await context.change("wait until nginx serves", () => waitUntilServing(context));
}

/**
 * The same for a rollback, which needs only nginx: if auth does not start, that is a warning, and auth is never built. `image`
 * is the id of the image that --to names.
 * Throws DockerError, UsageError, PortConflictError, ConfigurationError for nginx, StateFileError.
 */
export async function startServicesForRollback(context: Context, image?: string): Promise<void> {
  const all = await inspectServices(context).catch(() => undefined); // auth may be the problem
  const stack = all ?? (await inspectStack(context));
  const { nginx } = stack;
  expectOwn(context, nginx);
  await engineOf(context).checkPlace(context);
  await recordApis(context, stack);
  const stopped = stoppedNginx(context, nginx);
  if (stopped) await checkServicePort(context, stopped);
  await writeConfiguration(context, nginx.status === "running");
  if (stopped) await start(context, stopped);
  await engineOf(context).connect(context, nginx);
  if (stopped) {
    await context.change("wait until nginx serves", () => waitUntilServing(context));
  }
  try {
    if (!(await rollbackNeedsAuth(context, stack, image))) return;
    await createFoldersForRollback(context);
    const seen = (stopped ? undefined : all?.auth) ?? (await inspectAuth(context));
    const auth = stoppedAuth(context, seen, ["--no-build", "--pull", "never"]);
    if (auth) await checkServicePort(context, auth);
    if (auth) await start(context, auth, ACT_SECONDS);
  } catch (error) {
    if (!(error instanceof ToolError) || error instanceof InterruptedError) throw error;
    const { message, details } = error;
    context.log.warn(
      [`auth could not be started; the rollback continues without it: ${message}`, details].join("\n").trim(),
    );
  }
}

/** Does a color have auth, or the next release, or the one that a rollback goes to? Throws DockerError. */
async function rollbackNeedsAuth(
  context: Context,
  colors: Readonly<Record<Color, Container>>,
  image: string | undefined,
): Promise<boolean> {
  const { settings } = context;
  if (settings.api.auth === "on" || hasAuth(apisOf(settings, colors))) return true;
  // After a failed release, the container of a color is not the one that a rollback starts.
  const images =
    image === undefined ? Object.values(await taggedImages(context)).map((one) => one?.id) : [image];
  return images.some((id) => id !== undefined && apiOfImage(settings, id).auth === "on");
}

/** With AUTH=off in the settings and for both colors, an existing auth container is left alone. */
function reportUnusedAuth(context: Context, { status }: Container): void {
  if (status === "absent") return;
  const { dockerCmd } = context.settings;
  const name = authOf(context);
  context.log.info(
    `AUTH is off, but ${name} still exists. Only a rollback to a release with auth needs it. To remove it: ${dockerCmd} rm --force ${name}`,
  );
}

async function start(context: Context, service: StoppedService, deadline?: number): Promise<void> {
  const { dryRun } = context.options;
  context.log.info(dryRun ? `${service.name} does not run` : `${service.name} does not run: starting it`);
  await context.change(`start ${service.name}`, () => startService(context, service, deadline), [
    service.command,
  ]);
}

/** Requires that nginx, if it exists, has the port and the folder of this checkout. Throws UsageError. */
export function expectOwn(context: Context, nginx: Container): void {
  expectOwnPort(context, nginx);
  expectOwnFolder(context, nginx);
}

/** Requires that NGINX_PORT leads to this stack's nginx: another nginx's answers would make the run stop the serving color. */
function expectOwnPort({ settings, log }: Context, nginx: Container): void {
  const { nginxPort, nginxBind, nginxUrl, nginxContainer, dockerCmd } = settings;
  if (nginx.status === "absent") return;
  const recreate = `recreate the nginx container at a quiet time: ${dockerCmd} rm --force ${nginxContainer}, and run this again`;
  if (!nginx.ports.includes(nginxPort)) {
    throw new UsageError(
      `NGINX_PORT is ${nginxPort}, but ${nginxContainer} was created with ${nginx.ports.join(", ")}`,
      { next: `Restore the old value, or ${recreate}. Nothing was changed.` },
    );
  }
  const everywhere = nginx.binds.some((address) => ["", "0.0.0.0"].includes(address));
  const { hostname } = new URL(nginxUrl);
  if (!everywhere && !nginx.binds.includes(hostname)) {
    throw new UsageError(
      `NGINX_BIND is ${nginxBind ?? "not set"}, but ${nginxContainer} was created with ${nginx.binds.join(", ")}`,
      { next: `Restore the old value, or ${recreate}. Nothing was changed.` },
    );
  }
  if (everywhere && nginxBind !== undefined && nginxBind !== "0.0.0.0")
    log.warn(`NGINX_BIND is ${nginxBind}, but ${nginxContainer} still listens on all addresses: ${recreate}`);
}

/**
 * Requires that nginx reads the link of this checkout. Another checkout with the same project name has its own lock and color
 * record, so the two would release over each other. Throws UsageError.
 */
function expectOwnFolder({ settings }: Context, nginx: Container): void {
  const { nginxFolder, nginxContainer, dockerCmd, project } = settings;
  const mounted = nginx.folders[CONFIGURATION_FOLDER]?.replace(/^\/host_mnt(?=\/)/, ""); // Docker Desktop's prefix
  if (mounted === undefined || isSameFolder(mounted, nginxFolder)) return;
  throw new UsageError(
    `${nginxContainer} mounts the folder ${mounted}, but this checkout has ${nginxFolder}`,
    {
      details: `Two checkouts use the project ${project}, or one was moved.`,
      next: `Run this in the other checkout, or give this one another COMPOSE_PROJECT_NAME. If this one was moved, recreate the nginx container at a quiet time: ${dockerCmd} rm --force ${nginxContainer}, and run this again. Nothing was changed.`,
    },
  );
}

/** One folder can have several paths. */
function isSameFolder(one: string, other: string): boolean {
  if (one === other) return true;
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

async function waitUntilServing(context: Context): Promise<void> {
  const { dockerCmd, nginxContainer } = context.settings;
  const answers = async () => (await newestLoaded(context.settings)) !== undefined;
  if (!(await pollUntil(RELOAD_SECONDS, answers))) {
    throw new DockerError(`${nginxContainer} was started, but nginx does not answer`, {
      next: `See why: ${dockerCmd} logs --tail 20 ${nginxContainer}`,
    });
  }
  if ((await runningColors(context)).length === 0) return;
  await pollUntil(FIRST_LOOKUP_SECONDS, async () => (await servingColor(context)) !== undefined);
}
