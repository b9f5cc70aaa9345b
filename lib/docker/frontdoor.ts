import type { ProcessOutput } from "zx/core";
import { DockerError } from "../errors.ts";
import type { Stack } from "../stack.ts";
import { type Container, inspect, inspectAll } from "./container.ts";
import { checkCompose, compose, docker, expectSuccess, TELL_SECONDS, typed } from "./engine.ts";

/** The first start of nginx and auth may pull one and build the other. */
const FIRST_START_SECONDS = 1800;

/** The containers of nginx and auth. */
export interface FrontDoor {
  nginx: Container;
  auth: Container;
}

/** Looks at nginx and auth. Throws DockerError. */
export const inspectFrontDoor = (stack: Stack): Promise<FrontDoor> =>
  inspectAll(stack, { nginx: stack.settings.nginxContainer, auth: `${stack.settings.project}-auth` });

const frontDoorArgs = (stack: Stack, service: string): string[] =>
  compose(stack, "up", "-d", "--no-deps", "--no-recreate", service);

/** A service of the front door that does not run. */
export interface Down {
  name: string;
  service: string;
  /** Where it will listen on this host: all addresses where none is given. */
  port: number;
  address: string | undefined;
  /** The setting that decides the port. */
  setting: string;
  /** What brings it up. */
  command: string;
}

/** Which of nginx and auth do not run. */
export function downServices(stack: Stack, { nginx, auth }: FrontDoor): Down[] {
  const { nginxContainer, nginxPort, nginxBind, project, authPort } = stack.settings;
  const services = [
    {
      service: "loop-nginx",
      name: nginxContainer,
      port: nginxPort,
      address: nginxBind,
      setting: "NGINX_PORT",
    },
    {
      service: "loop-auth",
      name: `${project}-auth`,
      port: authPort,
      address: "127.0.0.1",
      setting: "AUTH_PORT",
    },
  ];
  return [nginx, auth].flatMap(({ status, ports }, i) => {
    const service = services[i];
    if (!service || ["running", "restarting"].includes(status)) return [];
    const command = typed(stack, frontDoorArgs(stack, service.service));
    return [{ ...service, port: ports[0] ?? service.port, command }]; // a stopped one starts with the port of before
  });
}

/** Starts nginx or auth; a running one is never recreated. Throws DockerError, ComposeFileError, InterruptedError. */
export async function startService(stack: Stack, { service, name }: Down): Promise<void> {
  const up = frontDoorArgs(stack, service);
  const { signal, log } = stack;
  await checkCompose(stack); // a rollback that finds all of it running does without
  const output = await docker(stack, up, { deadline: FIRST_START_SECONDS, signal, onLine: log.progress });
  signal.throwIfAborted();
  expectSuccess(
    output,
    `bringing up ${name}`,
    "Mend what Docker says (is its port free?) and run this again.",
  );
  // Compose leaves a container of this service as it is, also one of another name.
  if ((await inspect(stack, name)).status === "absent") {
    throw new DockerError(`${name} is not there, although it was brought up`, {
      next: `Is it there under the name of before (NGINX_CONTAINER)? Set that back, or remove that container at a quiet time, and run this again.`,
    });
  }
}

/** Runs a command inside nginx's container that takes `seconds` at most itself; the caller judges its exit code. */
export const execInNginx = (stack: Stack, command: string[], seconds = 0): Promise<ProcessOutput> =>
  docker(stack, ["exec", stack.settings.nginxContainer, ...command], { deadline: seconds + TELL_SECONDS });
