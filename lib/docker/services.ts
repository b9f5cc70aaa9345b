import type { ProcessOutput } from "zx/core";
import { DockerError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { ACT_SECONDS, compose, docker, expectSuccess, QUERY_SECONDS, shellCommand } from "./cli.ts";
import { type Container, inspect } from "./container.ts";
import { expectCompose } from "./engine.ts";
import { authOf } from "./names.ts";

/** The first start may pull nginx's image and build auth's. */
export const FIRST_START_SECONDS = 1800;

/** Inspects nginx. Throws DockerError. */
export const inspectNginx = (context: Context): Promise<Container> =>
  inspect(context, context.settings.nginxContainer);

/** Inspects auth. Throws DockerError. */
export const inspectAuth = (context: Context): Promise<Container> => inspect(context, authOf(context));

/** nginx or auth, when it does not run. */
export interface StoppedService {
  name: string;
  service: string;
  /** Where it will listen on this host; no address means all of them. */
  port: number;
  address: string | undefined;
  /** The setting of its port. */
  setting: string;
  /** There is no container to start; Compose has to create one. */
  absent: boolean;
  args: string[];
  /** What starts it, as an owner would type it. */
  command: string;
}

/** How to start a service; undefined when it runs. Compose is needed only to create a container. */
function stoppedService(
  context: Context,
  { status, ports }: Container,
  service: Pick<StoppedService, "service" | "name" | "port" | "address" | "setting">,
  more: readonly string[] = [],
): StoppedService | undefined {
  if (["running", "restarting"].includes(status)) return undefined;
  const absent = status === "absent";
  const args = absent
    ? compose(context, "up", "-d", "--no-deps", "--no-recreate", ...more, service.service)
    : [status === "paused" ? "unpause" : "start", service.name];
  // An existing container starts with the port that it was created with.
  return { ...service, port: ports[0] ?? service.port, absent, args, command: shellCommand(context, args) };
}

/** How to start nginx; undefined when it runs. */
export const stoppedNginx = (context: Context, nginx: Container): StoppedService | undefined =>
  stoppedService(context, nginx, {
    service: "loop-nginx",
    name: context.settings.nginxContainer,
    port: context.settings.nginxPort,
    address: context.settings.nginxBind,
    setting: "NGINX_PORT",
  });

/** How to start auth; undefined when it runs. `more` is passed to Compose. */
export const stoppedAuth = (
  context: Context,
  auth: Container,
  more: readonly string[] = [],
): StoppedService | undefined =>
  stoppedService(
    context,
    auth,
    {
      service: "loop-auth",
      name: authOf(context),
      port: context.settings.authPort,
      address: "127.0.0.1",
      setting: "AUTH_PORT",
    },
    more,
  );

/** Starts nginx or auth. A running container is never recreated. Throws DockerError, ComposeFileError, InterruptedError. */
export async function startService(
  context: Context,
  { name, absent, args }: StoppedService,
  deadline = absent ? FIRST_START_SECONDS : ACT_SECONDS,
): Promise<void> {
  const { signal, log } = context;
  if (absent) await expectCompose(context);
  const output = await docker(context, args, { deadline, signal, onLine: log.progress });
  signal.throwIfAborted();
  expectSuccess(
    output,
    `starting ${name}`,
    "Fix what Docker reports (for example a port in use) and run this again.",
  );
  // Compose reuses a container of this service even when it has another name.
  if (absent && (await inspect(context, name)).status === "absent") {
    throw new DockerError(`${name} does not exist, although Compose started it`, {
      next: `Does a container with the previous NGINX_CONTAINER name still exist? Restore that name, or remove that container at a quiet time, and run this again.`,
    });
  }
}

/** Runs a command in nginx's container that takes `seconds` at most. The caller checks its exit code. Throws DeadlineError. */
export const execInNginx = (context: Context, command: string[], seconds = 0): Promise<ProcessOutput> =>
  docker(context, ["exec", context.settings.nginxContainer, ...command], {
    deadline: seconds + QUERY_SECONDS,
  });

/** Free bytes of the engine's disk, as nginx's container sees it; undefined when it does not run. Throws DeadlineError. */
export async function freeSpaceInside(context: Context): Promise<number | undefined> {
  const output = await execInNginx(context, ["df", "-Pk", "/"]); // overlay reports the disk of its upper layer
  const [, , , free] = output.stdout.trim().split("\n").at(-1)?.split(/\s+/) ?? [];
  return output.exitCode === 0 && /^\d+$/.test(free ?? "") ? Number(free) * 1024 : undefined;
}
