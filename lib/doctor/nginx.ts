import { docker, lastLines } from "../docker/cli.ts";
import { readOnlyMount } from "../docker/mounts.ts";
import { FIRST_START_SECONDS } from "../docker/services.ts";
import { CONFIGURATION, CONFIGURATION_FOLDER } from "../nginx/workers.ts";
import type { Context } from "../run/context.ts";
import { isAtLeast } from "../util/version.ts";
import { ok, problem, type Verdict } from "./finding.ts";

/** The first version that keeps connections to an upstream with the settings of the configuration. */
const OLDEST = [1, 29, 7] as const;

/** The version first: an old nginx would only call a directive unknown. */
const TEST = `nginx -v && exec nginx -t -q -c ${CONFIGURATION}`;

/**
 * Tests this stack's configuration in a short-lived container of nginx's image, without a network. Pulls the image if it is
 * missing. Throws DeadlineError.
 */
export async function checkNginx(context: Context): Promise<Verdict> {
  const { settings, signal, log } = context;
  const image = settings.environment.NGINX_IMAGE ?? "";
  const writable = ["/tmp", "/run", "/var/cache/nginx", "/var/lib/nginx"];
  const output = await docker(
    context,
    [
      ...["run", "--rm", "--network", "none", "--read-only"],
      ...writable.flatMap((folder) => ["--tmpfs", folder]),
      ...readOnlyMount(settings.nginxFolder, CONFIGURATION_FOLDER),
      ...["--entrypoint", "sh", image, "-c", TEST],
    ],
    { deadline: FIRST_START_SECONDS, signal, onLine: log.progress },
  );
  const [, found] = output.stderr.match(/nginx version: nginx\/(\d+\.\d+\.\d+)/) ?? [];
  if (found === undefined)
    return problem(
      `the image ${image} does not start as nginx: ${lastLines(output.stderr, 3)}`,
      "Check NGINX_IMAGE, and that docker pull can pull it.",
    );
  if (!isAtLeast(found, OLDEST))
    return problem(
      `${image} has nginx ${found}; ${OLDEST.join(".")} or newer is needed`,
      "Set NGINX_IMAGE to a newer one, such as nginx:1.30.",
    );
  if (output.exitCode !== 0)
    return problem(
      // Its last line only says that the test failed.
      `nginx rejects its configuration: ${output.stderr.match(/\[emerg\] .*/)?.[0] ?? lastLines(output.stderr, 2)}`,
      `Correct the file in ${settings.nginxFolder}.`,
    );
  return ok(`${found} accepts its configuration`);
}
