import { spawn } from "node:child_process";
import { copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { $, which } from "zx";
import { freePort, type Scratch, waitFor } from "./scratch.ts";

/** The user of a registry with a password, and the bcrypt hash of that password. */
export const USER = { name: "tester", password: "correct-horse" };
const HTPASSWD = `${USER.name}:$2y$04$5nWlZixXM4alwe9sMi2LLuBkvNYGeTOp/41N4APy5OQh1p8gYnxs2`;

/** A registry on this machine, for one stack: Debian's docker-registry. */
export interface Registry {
  /** Its address, as it stands in references. */
  host: string;
  /** DOCKER_CONFIG with its login; of a registry without a password, without one. */
  login: Record<string, string>;
  /** Builds a folder, with these options of `docker build`, and pushes it as `tag`. Returns the reference. The image is not left on this machine. */
  push(folder: string, tag: string, options?: readonly string[]): Promise<string>;
  stop(): void;
}

/** Can this machine run a registry? */
export const hasRegistry = which.sync("docker-registry", { nothrow: true }) !== null;

/** Starts a registry, with a password or without. Those of one stack have the same images. */
export async function startRegistry(stack: Scratch, withPassword = false): Promise<Registry> {
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const folder = join(stack.folder, `registry-${port}`);
  await mkdir(join(folder, "config"), { recursive: true });
  await writeFile(join(folder, "users"), `${HTPASSWD}\n`);
  const auth = withPassword ? { auth: { htpasswd: { realm: "test", path: join(folder, "users") } } } : {};
  const configuration = {
    version: "0.1",
    storage: {
      filesystem: { rootdirectory: join(stack.folder, "registry-data") },
      delete: { enabled: true },
    },
    http: { addr: host },
    ...auth,
  };
  await writeFile(join(folder, "config.yml"), JSON.stringify(configuration)); // JSON is YAML
  const server = spawn("docker-registry", ["serve", join(folder, "config.yml")], {
    env: { ...process.env, OTEL_TRACES_EXPORTER: "none" },
    stdio: "ignore",
  });
  await waitFor("the registry answers", async () => (await fetch(`http://${host}/v2/`)).status < 500);

  const login: Record<string, string> = withPassword ? { DOCKER_CONFIG: join(folder, "config") } : {};
  const docker = $({ quiet: true, env: { ...process.env, ...login } as Record<string, string> });
  if (withPassword) {
    // Compose may be installed for this user only.
    await symlink(join(homedir(), ".docker/cli-plugins"), join(folder, "config/cli-plugins"));
    await docker({ input: USER.password })`docker login --username ${USER.name} --password-stdin ${host}`;
  }
  return {
    host,
    login,
    push: async (context, tag, options = []) => {
      const reference = `${host}/${stack.project}/api:${tag}`;
      await docker`docker build ${options} --tag ${reference} ${context}`;
      await docker`docker push ${reference}`;
      await docker`docker rmi ${reference}`;
      return reference;
    },
    stop: () => void server.kill("SIGKILL"),
  };
}

/** The libraries of a program, as paths. */
async function librariesOf(program: string): Promise<string[]> {
  const { stdout } = await $({ quiet: true })`ldd ${program}`;
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
}

/** The default port of `smallApi`: another API than the example. */
export const SMALL_API_PORT = "3000";

/**
 * Writes the sources of an API whose image is 3 MB, so that pushing and pulling it takes no time: BusyBox's web server, with
 * one file for /health, in a VOLUME: what one release leaves there must not reach the next. Returns the folder.
 */
export async function smallApi(
  stack: Scratch,
  version: string,
  { status = "healthy", port = SMALL_API_PORT } = {},
): Promise<string> {
  const folder = join(stack.folder, `small-api-${version}`);
  const program = (await $({ quiet: true })`command -v busybox`).stdout.trim();
  await mkdir(join(folder, "root/www"), { recursive: true });
  for (const file of [program, ...(await librariesOf(program))]) {
    await mkdir(join(folder, "root", dirname(file)), { recursive: true });
    await copyFile(file, join(folder, "root", file));
  }
  await writeFile(join(folder, "root/www/health"), JSON.stringify({ status, vault_exists: true, version }));
  const command = JSON.stringify([program, "httpd", "-f", "-p", port, "-h", "/www"]);
  // As the first process of a container, it would ignore SIGTERM.
  await writeFile(
    join(folder, "Dockerfile"),
    `FROM scratch\nCOPY root /\nVOLUME /www\nSTOPSIGNAL SIGKILL\nCMD ${command}\n`,
  );
  return folder;
}
