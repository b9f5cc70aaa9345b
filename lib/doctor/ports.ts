import type { Color } from "../color.ts";
import {
  inspectAuth,
  inspectNginx,
  type StoppedService,
  stoppedAuth,
  stoppedNginx,
} from "../docker/services.ts";
import { inspectColor } from "../engine/colors.ts";
import { checkPortAvailable, checkServicePort } from "../release/port.ts";
import { expectOwn } from "../release/services.ts";
import type { Context } from "../run/context.ts";
import { getHostPort } from "../settings.ts";
import { ok, type Verdict } from "./finding.ts";

/** A running service has its port; one that a run would start needs a free one. */
async function portOf(context: Context, stopped: StoppedService | undefined, port: number): Promise<Verdict> {
  if (!stopped) return ok(`${port}, in use by this stack`);
  await checkServicePort(context, stopped);
  return ok(`${stopped.port} is free`);
}

/** Throws PortConflictError; UsageError for a wrong NGINX_BIND, or an nginx of another checkout; DockerError. */
export async function checkNginxPort(context: Context): Promise<Verdict> {
  const nginx = await inspectNginx(context);
  expectOwn(context, nginx);
  return portOf(context, stoppedNginx(context, nginx), context.settings.nginxPort);
}

/** Throws PortConflictError, DockerError. */
export async function checkAuthPort(context: Context): Promise<Verdict> {
  if (context.settings.api.auth === "off") return ok("none: AUTH=off");
  return portOf(context, stoppedAuth(context, await inspectAuth(context)), context.settings.authPort);
}

/** Throws PortConflictError, DockerError. */
export const checkColorPort =
  (color: Color) =>
  async (context: Context): Promise<Verdict> => {
    await checkPortAvailable(context, color);
    const port = getHostPort(context.settings, color);
    const { status } = await inspectColor(context, color);
    return ok(
      ["running", "paused", "restarting"].includes(status)
        ? `${port}, in use by this stack`
        : `${port} is free`,
    );
  };
