import type { Color } from "../color.ts";
import { CHECK_DOCKER, docker, dockerFailed, expectSuccess, lastLines } from "../docker/cli.ts";
import { tagImage } from "../docker/image.ts";
import { imageOf, repositoryOfStack } from "../docker/names.ts";
import { repositoryOf } from "../docker/pull.ts";
import { DockerError, UsageError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { z } from "../util/zod.ts";

/** No registry listens at this address, so the node uses its local image. For a name without a registry, it would ask Docker Hub. */
const NOWHERE = "127.0.0.1:1";

const FORMAT = '{"id":{{json .Id}},"digests":{{json .RepoDigests}}}';
const Inspected = z.object({ id: z.string(), digests: z.array(z.string()).nullish() });

async function inspect(context: Context, name: string): Promise<{ id: string; digests: readonly string[] }> {
  const output = await docker(context, ["image", "inspect", "--format", FORMAT, name]);
  expectSuccess(output, `inspecting the image ${name}`, CHECK_DOCKER);
  const { id, digests } = Inspected.parse(JSON.parse(output.stdout));
  return { id, digests: digests ?? [] };
}

/** How many nodes the swarm has. Throws DockerError. */
async function countNodes(context: Context): Promise<number> {
  const output = await docker(context, ["node", "ls", "--quiet"]);
  expectSuccess(
    output,
    "listing the nodes",
    "Run this on a manager of the swarm, or create a swarm here: docker swarm init.",
  );
  return output.stdout.split("\n").filter(Boolean).length;
}

/**
 * Before a build: checks that every node will be able to pull the image. Throws UsageError if not, DockerError.
 */
export async function checkBuild(context: Context): Promise<void> {
  if (context.settings.registry !== undefined || (await countNodes(context)) === 1) return;
  throw new UsageError("REGISTRY is not set, and the swarm has more than one node", {
    details: "The other nodes could not pull an image that was built here.",
    next: "Set REGISTRY to a registry that every node reaches, or set LOOP_API_IMAGE to an image in one. Nothing was started.",
  });
}

/** The name of a color's image for the only node of a swarm. */
const localName = ({ settings }: Context, color: Color): string => `${NOWHERE}/${imageOf(settings, color)}`;

/**
 * In a swarm with one node, a service uses an image by its local name: makes that name refer to this image. Does nothing for an image
 * from a registry. Throws DockerError.
 */
export async function tagLocalName(context: Context, image: string, id: string): Promise<void> {
  if (image.startsWith(`${NOWHERE}/`)) await tagImage(context, id, image);
}

/**
 * The reference by which every node can pull a color's image: by digest, from REGISTRY after a push, or from the registry that the image
 * was pulled from. In a swarm with one node, an image that was built here has a local name instead, which `tagLocalName` gives it. Throws
 * UsageError if the other nodes cannot pull the image, DockerError.
 */
export async function imageForNodes(context: Context, color: Color): Promise<{ image: string; id: string }> {
  const { settings } = context;
  const tag = imageOf(settings, color);
  const { id, digests } = await inspect(context, tag);
  // With the containerd image store, a local build also has a digest, but under a name that no registry knows.
  const own = [repositoryOfStack(settings), `${NOWHERE}/${repositoryOfStack(settings)}`];
  const pulled = digests.filter((one) => !own.includes(repositoryOf(one)));
  const wanted = settings.apiImage === undefined ? undefined : repositoryOf(settings.apiImage);
  const source = pulled.find((one) => repositoryOf(one) === wanted) ?? pulled[0];
  if (settings.registry !== undefined)
    return { id, image: await push(context, id, color, settings.registry) };
  if (source !== undefined) return { id, image: source };
  await checkBuild(context);
  return { id, image: localName(context, color) };
}

/**
 * Pushes an image and returns its reference by digest. Layers that the registry has are not sent again. If the push of an image that was
 * pushed before fails, as in a rollback, only warns: the nodes may still have the image. Throws DockerError.
 */
async function push(context: Context, id: string, color: Color, registry: string): Promise<string> {
  const { settings, log, signal } = context;
  const repository = `${registry}/${settings.project}-api`;
  const tag = `${repository}:${color}`;
  await tagImage(context, id, tag);
  const output = await docker(context, ["push", tag], {
    deadline: settings.buildSeconds,
    signal,
    onLine: log.progress,
  });
  signal.throwIfAborted();
  const { digests } = await inspect(context, id);
  const before = digests.find((one) => one.startsWith(`${repository}@`));
  if (output.exitCode !== 0 && before !== undefined) {
    log.warn(
      `${tag} could not be pushed again; nodes without this image will try to pull it. Docker says: ${lastLines(output.stdall, 1)}`,
    );
    return before;
  }
  if (output.exitCode !== 0)
    throw dockerFailed(
      output,
      `pushing ${tag}`,
      "Check REGISTRY. If it needs a login, run docker login; for a registry without TLS, see docs/swarm.md. The serving color was not touched.",
    );
  const pushed = output.stdout.match(/digest: (sha256:[0-9a-f]{64})/)?.[1];
  const found = pushed ? `${repository}@${pushed}` : before;
  if (found === undefined)
    throw new DockerError(`The digest of ${tag} is unknown, although it was pushed`, {
      next: `Run this, and see what it prints: ${settings.dockerCmd} push ${tag}`,
    });
  return found;
}
