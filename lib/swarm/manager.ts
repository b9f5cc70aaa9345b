import { COLORS } from "../color.ts";
import { CHECK_DOCKER, docker, expectSuccess } from "../docker/cli.ts";
import { UsageError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { MANAGER, swarmServiceOf } from "./names.ts";
import { inspectSwarmServices } from "./services.ts";

/** The id of the node that the scripts run on. Throws DockerError. */
export async function nodeId(context: Context): Promise<string> {
  const output = await docker(context, ["info", "--format", "{{.Swarm.NodeID}}"]);
  expectSuccess(output, "asking for the id of this node", CHECK_DOCKER);
  return output.stdout.trim();
}

/**
 * Checks that no other node releases these colors. nginx, the lock and the color record are on that node, so a run here could stop the color
 * that serves. Throws UsageError if one does, DockerError.
 */
export async function expectManager(context: Context): Promise<void> {
  const { settings } = context;
  const [own, services] = await Promise.all([nodeId(context), inspectSwarmServices(context)]);
  for (const color of COLORS) {
    const manager = services[color]?.labels[MANAGER];
    if (manager === undefined || manager === own) continue;
    const name = swarmServiceOf(settings, color);
    throw new UsageError(`The service ${name} is managed from another node of the swarm`, {
      details: `That node has the id ${manager}. This one has the id ${own}.`,
      next: `Run the scripts there, in the same checkout. If that node is lost for good: ${settings.dockerCmd} service update --label-add ${MANAGER}=${own} ${name}, then run this again.`,
    });
  }
}
