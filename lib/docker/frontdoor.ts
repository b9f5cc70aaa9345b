import type { ProcessOutput } from "zx/core";
import { DockerError } from "../errors.ts";
import type { Stack } from "../stack.ts";
import { type Container, inspect, inspectAll } from "./container.ts";
import { ACT_SECONDS, checkCompose, compose, docker, expectSuccess, TELL_SECONDS, typed } from "./engine.ts";

/** The first start of nginx and auth may pull one and build the other. */
const FIRST_START_SECONDS = 1800;

/** The containers of nginx and auth. */
interface FrontDoor {
  nginx: Container;
  auth: Container;
}

const authOf = ({ settings }: Stack): string => `${settings.project}-auth`;

/** Looks at nginx and auth. Throws DockerError. */
export const inspectFrontDoor = (stack: Stack): Promise<FrontDoor> =>
  inspectAll(stack, { nginx: stack.settings.nginxContainer, auth: authOf(stack) });

/** Looks at nginx alone. Throws DockerError. */
export const inspectNginx = (stack: Stack): Promise<Container> =>
  inspect(stack, stack.settings.nginxContainer);

/** Looks at auth alone. Throws DockerError. */
export const inspectAuth = (stack: Stack): Promise<Container> => inspect(stack, authOf(stack));

/** A service of the front door that does not run. */
export interface Down {
  name: string;
  service: string;
  /** Where it will listen on this host: all addresses where none is given. */
  port: number;
  address: string | undefined;
  /** The setting that decides the port. */
  setting: string;
  /** There is no container to start: only Compose can make one. */
  absent: boolean;
  args: string[];
  /** What brings it up, as an owner could type it. */
  command: string;
}

/** How a service is brought up; undefined for one that runs. Compose is needed only where there is no container. */
function downService(
  stack: Stack,
  { status, ports }: Container,
  service: Pick<Down, "service" | "name" | "port" | "address" | "setting">,
  more: readonly string[] = [],
): Down | undefined {
  if (["running", "restarting"].includes(status)) return undefined;
  const absent = status === "absent";
  const args = absent
    ? compose(stack, "up", "-d", "--no-deps", "--no-recreate", ...more, service.service)
    : [status === "paused" ? "unpause" : "start", service.name];
  // A stopped one starts with the port that it was made for.
  return { ...service, port: ports[0] ?? service.port, absent, args, command: typed(stack, args) };
}

/** How nginx is brought up; undefined when it runs. */
export const downNginx = (stack: Stack, nginx: Container): Down | undefined =>
  downService(stack, nginx, {
    service: "loop-nginx",
    name: stack.settings.nginxContainer,
    port: stack.settings.nginxPort,
    address: stack.settings.nginxBind,
    setting: "NGINX_PORT",
  });

/** How auth is brought up; undefined when it runs. `more` is given to Compose. */
export const downAuth = (stack: Stack, auth: Container, more: readonly string[] = []): Down | undefined =>
  downService(
    stack,
    auth,
    {
      service: "loop-auth",
      name: authOf(stack),
      port: stack.settings.authPort,
      address: "127.0.0.1",
      setting: "AUTH_PORT",
    },
    more,
  );

/** Starts nginx or auth; a running one is never recreated. Throws DockerError, ComposeFileError, InterruptedError. */
export async function startService(
  stack: Stack,
  { name, absent, args }: Down,
  deadline = absent ? FIRST_START_SECONDS : ACT_SECONDS,
): Promise<void> {
  const { signal, log } = stack;
  if (absent) await checkCompose(stack);
  const output = await docker(stack, args, { deadline, signal, onLine: log.progress });
  signal.throwIfAborted();
  expectSuccess(
    output,
    `bringing up ${name}`,
    "Mend what Docker says (is its port free?) and run this again.",
  );
  // Compose leaves a container of this service as it is, also one of another name.
  if (absent && (await inspect(stack, name)).status === "absent") {
    throw new DockerError(`${name} is not there, although it was brought up`, {
      next: `Is it there under the name of before (NGINX_CONTAINER)? Set that back, or remove that container at a quiet time, and run this again.`,
    });
  }
}

/** Runs a command inside nginx's container that takes `seconds` at most itself; the caller judges its exit code. */
export const execInNginx = (stack: Stack, command: string[], seconds = 0): Promise<ProcessOutput> =>
  docker(stack, ["exec", stack.settings.nginxContainer, ...command], { deadline: seconds + TELL_SECONDS });
