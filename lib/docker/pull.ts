import { PullError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { docker, lastLines } from "./cli.ts";
import { type Image, inspectImage, shortName } from "./image.ts";

/** The arguments that pull an image. */
export const pullArgs = (reference: string): string[] => ["pull", reference];

const DIGEST = /@sha256:[0-9a-f]+$/;

/** A reference without its tag and digest, as Docker shows it: the repository of the image. */
export const repositoryOf = (reference: string): string =>
  shortName(reference)
    .replace(DIGEST, "")
    .replace(/:[^:/]+$/, "");

/** A reference with this digest. With a digest, Docker ignores the tag, so only a reference without one keeps its tag. */
function pinned(reference: string, digest: string): string {
  const repository = repositoryOf(reference);
  if (DIGEST.test(reference)) return `${repository}@${digest}`;
  const [, tag = "latest"] = shortName(reference).match(/:([^:/]+)$/) ?? [];
  return `${repository}:${tag}@${digest}`;
}

/** The registry of a reference, as `docker login` takes it; empty for Docker Hub. */
function registryOf(reference: string): string {
  const [first = "", ...path] = reference.split("/");
  return path.length > 0 && /[.:]|^localhost$/.test(first) ? first : "";
}

/** Why a pull failed: what Docker prints, what that means, and what to do. The first match counts. */
const REASONS: readonly [pattern: RegExp, what: string, next: (reference: string) => string][] = [
  [
    /docker-credential-|error getting credentials/i,
    "the credential helper does not work",
    () => "Check credHelpers and credsStore in ~/.docker/config.json, and PATH in the crontab",
  ],
  [
    /permission denied.*(docker daemon|docker\.sock)/i,
    "this user may not use Docker",
    () => "Run this as a user who may use Docker",
  ],
  [
    /no space left on device/i,
    "the disk is full",
    () => "Free some space (docker system df shows what Docker uses)",
  ],
  [
    /no matching manifest|does not match the specified platform|no match for platform/i,
    "it does not exist for this machine's architecture",
    () => "Build and push it for this machine's architecture too",
  ],
  [
    /toomanyrequests|rate limit/i,
    "the registry allows no more pulls for now",
    (reference) =>
      `Wait, or log in: ${`docker login ${registryOf(reference)}`.trim()}, as the user who runs this`,
  ],
  [
    /pull access denied|repository does not exist or may require/i,
    "it does not exist, or this user may not pull it",
    (reference) =>
      `Check its name. If it is private, log in as the user who runs this: ${`docker login ${registryOf(reference)}`.trim()}`,
  ],
  [
    /unauthorized|no basic auth credentials|authentication required|denied|forbidden/i,
    "the registry requires a login, or this user may not pull it",
    (reference) =>
      `Log in as the user who runs this, by hand or in cron: ${`docker login ${registryOf(reference)}`.trim()}`,
  ],
  [
    /manifest unknown|not found|name unknown|does not exist/i,
    "the registry does not have it",
    () => "Check its name and tag, and that it was pushed",
  ],
  [
    /server gave HTTP response to HTTPS client/i,
    "the registry does not use HTTPS",
    () => "Give the registry a certificate, or add it to insecure-registries in the engine's daemon.json",
  ],
  [
    /x509|certificate/i,
    "the certificate of the registry is not valid for this machine",
    () => "Check the certificate and the clock of this machine",
  ],
  [
    /dial tcp|no such host|connection refused|timeout|deadline exceeded|connection reset|EOF|unreachable|TLS handshake/i,
    "the registry cannot be reached",
    () => "Check the network, its DNS and that the registry runs",
  ],
];

/** The error for a pull that failed with this output. */
export function pullFailed(reference: string, output: string): PullError {
  const [, what, next] = REASONS.find(([pattern]) => pattern.test(output)) ?? [];
  return new PullError(`${reference} cannot be pulled: ${what ?? "Docker reports an error"}`, {
    details: lastLines(output, 10),
    next: `${next?.(reference) ?? "Fix what Docker reports"}, then deploy again; the serving color was not touched.`,
  });
}

/** By the architecture of the engine: the other architectures whose images it also runs. */
const RUNS: Readonly<Record<string, readonly string[]>> = { amd64: ["386"], arm64: ["arm"] };

/** A pulled image. */
export interface Pulled extends Image {
  /** Where it came from: `repository:tag@sha256:…`, or without the tag, if it was pulled by digest. */
  source: string;
}

/**
 * Pulls an image, BUILD_SECONDS at most, and finds out which digest that is: a tag can move at any time. Stops when the run is
 * interrupted. Throws PullError, DeadlineError, DockerError.
 */
export async function pull(context: Context, reference: string): Promise<Pulled> {
  const { settings, signal, log } = context;
  const layers = { known: 0, done: 0 };
  const onLine = (line: string): void => {
    if (/: (Pulling fs layer|Already exists)$/.test(line)) layers.known++;
    if (/: (Pull complete|Already exists)$/.test(line)) layers.done++;
    log.progress(layers.known > 0 ? `${layers.done} of ${layers.known} layers pulled` : line);
  };
  const output = await docker(context, pullArgs(reference), {
    deadline: settings.buildSeconds,
    signal,
    onLine,
  });
  signal.throwIfAborted();
  if (output.exitCode !== 0) throw pullFailed(reference, output.stderr);
  const digest = output.stdout.match(/^Digest: (sha256:[0-9a-f]{64})$/m)?.[1];
  const image = digest && (await inspectImage(context, `${repositoryOf(reference)}@${digest}`));
  if (!image) {
    throw new PullError(`${reference} was pulled, but Docker does not say which digest it has`, {
      details: lastLines(output.stdall, 10),
      next: "Check that docker pull works. The serving color was not touched.",
    });
  }
  await expectArchitecture(context, reference, image);
  return { ...image, source: pinned(reference, digest) };
}

/** An image for another machine starts, and fails with "exec format error". Throws PullError. */
async function expectArchitecture(context: Context, reference: string, image: Image): Promise<void> {
  const output = await docker(context, ["version", "--format", "{{.Server.Arch}}"]);
  const engine = output.stdout.trim();
  if (output.exitCode !== 0 || engine === "" || image.architecture === engine) return;
  if (RUNS[engine]?.includes(image.architecture)) return;
  throw new PullError(`${reference} is an image for ${image.architecture}, and this machine is ${engine}`, {
    next: "Build and push it for this machine's architecture too, then deploy again; the serving color was not touched.",
  });
}
