import { act, CHECK_DOCKER, docker, dockerFailed, expectSuccess } from "../docker/cli.ts";
import { DockerError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { networkOf, PROJECT } from "./names.ts";

/** The arguments that connect nginx to the network of the replicas. */
export const connectArgs = ({ settings }: Context): string[] => [
  ...["network", "connect", networkOf(settings)],
  settings.nginxContainer,
];

/**
 * Creates the network of the replicas, and connects nginx to it, if that was not done yet. nginx keeps running, and keeps its other
 * networks: it still reaches auth, and a color that Compose runs. Throws DockerError.
 */
export async function connectNginx(context: Context): Promise<void> {
  const { settings } = context;
  const network = networkOf(settings);
  const seen = await docker(context, [
    "network",
    "inspect",
    "--format",
    "{{.Driver}} {{.Attachable}}",
    network,
  ]);
  if (seen.exitCode === 0 && seen.stdout.trim() !== "overlay true")
    throw new DockerError(`The network ${network} is not an attachable overlay network`, {
      next: `Remove it (${settings.dockerCmd} network rm ${network}), or set another COMPOSE_PROJECT_NAME.`,
    });
  if (seen.exitCode !== 0) {
    if (!/no such network|not found/i.test(seen.stderr))
      throw dockerFailed(seen, `inspecting ${network}`, CHECK_DOCKER);
    const label = `${PROJECT}=${settings.project}`;
    const created = await act(context, [
      ...["network", "create", "--driver", "overlay", "--attachable", "--label", label],
      network,
    ]);
    expectSuccess(
      created,
      `creating the network ${network}`,
      "Run this on a manager of the swarm, or create a swarm here: docker swarm init.",
    );
  }
  const connected = await act(context, connectArgs(context));
  if (connected.exitCode !== 0 && !/already (exists in|attached to) network/i.test(connected.stderr))
    throw dockerFailed(connected, `connecting ${settings.nginxContainer} to ${network}`, CHECK_DOCKER);
}
