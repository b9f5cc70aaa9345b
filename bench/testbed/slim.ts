import { $ } from "zx";

/** What the example API needs of Debian, besides libraries: its interpreter, a shell, and the API itself. */
const API = "bin usr/bin/sh usr/bin/python3* usr/lib/python3* usr/bin/dash usr/bin/sleep srv";

/** What nginx needs, and the programs that runs use in its container. Whole folders, because which programs they use changes. */
const NGINX =
  "bin etc/group etc/nginx etc/passwd usr/bin usr/lib/nginx usr/sbin/nginx var/cache/nginx var/lib/nginx var/log/nginx";

/** Copies this, and every library that a program or module in it is linked with. */
const copy = (needed: string): string => `
cd / && mkdir -p /slim/tmp /slim/run && cp -a --parents $(ls -d ${needed} 2>/dev/null) /slim
find /slim/usr -type f \\( -perm -u+x -o -name '*.so*' \\) -exec ldd {} + 2>/dev/null \\
  | grep -o '/[^ ):]*' | grep -v '^/slim' | sort -u | xargs cp -aL --parents -t /slim
`;

/** Part of an image's configuration, as `docker inspect` prints it. */
interface Config {
  Env: string[];
  Cmd: string[];
  WorkingDir?: string;
  StopSignal?: string;
}

/** Makes an image with only the needed files of another. It has the same environment and command, but no entrypoint and no labels. */
async function slimImage(original: string, name: string, needed: string): Promise<void> {
  const quiet = $({ quiet: true });
  const { stdout } = await quiet`docker inspect --format ${"{{json .Config}}"} ${original}`;
  const { Env, Cmd, WorkingDir, StopSignal } = JSON.parse(stdout) as Config;
  const dockerfile = [
    `FROM ${original} AS whole`,
    `RUN ${JSON.stringify(["sh", "-c", copy(needed)])}`,
    "FROM scratch",
    "COPY --from=whole /slim/ /",
    ...Env.map((one) => `ENV ${one.replace("=", '="')}"`),
    `WORKDIR ${WorkingDir || "/"}`,
    `STOPSIGNAL ${StopSignal || "SIGTERM"}`,
    `CMD ${JSON.stringify(Cmd)}`,
  ].join("\n");
  await $({ quiet: true, input: dockerfile })`docker build --quiet --tag ${name} -`;
}

/**
 * Makes small images of the API in this folder, and of nginx: a swarm's nodes get them as archives and through a registry, on this
 * machine. The names of all images begin with `prefix`.
 */
export async function slimImages(prefix: string, folder: string): Promise<{ api: string; nginx: string }> {
  const [whole, api, nginx] = [`${prefix}-whole`, `${prefix}-slim`, `${prefix}-slim-nginx`];
  await $({ quiet: true })`docker build --quiet --tag ${whole} ${folder}`;
  await slimImage(whole, api, API);
  await slimImage("nginx:1.30", nginx, NGINX);
  return { api, nginx };
}
