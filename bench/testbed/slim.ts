import { $ } from "zx";

/** What the example API needs of Debian, besides libraries: its interpreter, a shell, and the API itself. */
const NEEDED = "usr/bin/python3* usr/lib/python3* usr/bin/dash usr/bin/sleep srv";

/** Copies it, and every library that a program or module in it is linked with. */
const COPY = `
cd / && mkdir -p /slim/tmp /slim/bin && cp -a --parents $(ls -d ${NEEDED} 2>/dev/null) /slim
find /slim/usr -type f \\( -perm -u+x -o -name '*.so*' \\) -exec ldd {} + 2>/dev/null \\
  | grep -o '/[^ ):]*' | grep -v '^/slim' | sort -u | xargs cp -aL --parents -t /slim
ln -s ../usr/bin/dash /slim/bin/sh
`;

/**
 * Makes a small image of the example API: nodes of a swarm pull it through gzip and a registry, on this machine. The result behaves
 * as the original.
 */
export async function slimImage(original: string, name: string): Promise<void> {
  const quiet = $({ quiet: true });
  const { stdout } = await quiet`docker inspect --format ${"{{json .Config}}"} ${original}`;
  const { Env, Cmd, WorkingDir } = JSON.parse(stdout) as { Env: string[]; Cmd: string[]; WorkingDir: string };
  const dockerfile = [
    `FROM ${original} AS whole`,
    `RUN ${JSON.stringify(["sh", "-c", COPY])}`,
    "FROM scratch",
    "COPY --from=whole /slim/ /",
    ...Env.map((one) => `ENV ${one.replace("=", '="')}"`),
    `WORKDIR ${WorkingDir}`,
    `CMD ${JSON.stringify(Cmd)}`,
  ].join("\n");
  await $({ quiet: true, input: dockerfile })`docker build --quiet --tag ${name} -`;
}
