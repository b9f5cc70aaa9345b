import type { Color } from "../color.ts";
import { serviceOf } from "../docker/names.ts";
import type { Settings } from "../settings.ts";
import { quote } from "../util/quote.ts";
import { type ComposeService, tmpfsOptions } from "./compose-service.ts";
import { IMAGE, networkOf, PROJECT, swarmServiceOf } from "./names.ts";

/** Names that would change what the docker command itself does. */
const isOfDocker = (name: string): boolean =>
  /^(PATH|HOME|DOCKER_.*|GO(DEBUG|GC|MAXPROCS|MEMLIMIT|TRACEBACK)|.*_proxy|.*_PROXY|LD_.*)$/.test(name);

const each = <T>(values: readonly T[] | null | undefined, flags: (value: T) => string[]): string[] =>
  (values ?? []).flatMap(flags);
const given = (flag: string, value: string | number | undefined): string[] =>
  value === undefined ? [] : [flag, String(value)];

/** Docker parses mounts as CSV. */
const csv = (fields: readonly string[]): string =>
  fields.map((field) => (/[",\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field)).join(",");

type Volume = NonNullable<ComposeService["volumes"]>[number];

/** Fields of a mount: those that have a value. */
const mountFields = (fields: Readonly<Record<string, string | number | undefined>>): string[] =>
  Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));

function mountOf({
  type,
  source,
  target,
  read_only,
  bind,
  volume,
  tmpfs,
  driver,
  driver_opts,
}: Volume): string[] {
  // An empty one takes the place of a folder that the API does not need; see emptyMount in lib/settings.ts.
  const memory = { "tmpfs-size": tmpfs?.size ?? 4096, "tmpfs-mode": tmpfs?.mode?.toString(8) };
  const options = {
    source,
    target,
    "bind-propagation": bind?.propagation,
    "volume-driver": driver,
    "volume-nocopy": volume?.nocopy ? "true" : undefined,
  };
  const fields = [
    ...mountFields({ type, ...(type === "tmpfs" ? { target, ...memory } : options) }),
    ...Object.entries(driver_opts ?? {}).map(([name, value]) => `volume-opt=${name}=${value ?? ""}`),
    ...(read_only && type !== "tmpfs" ? ["readonly"] : []),
  ];
  return ["--mount", csv(fields)];
}

function tmpfsOf(text: string): string[] {
  const { size, mode } = Object.fromEntries(tmpfsOptions(text));
  const [target = ""] = text.split(":");
  return ["--mount", csv(mountFields({ type: "tmpfs", target, "tmpfs-size": size, "tmpfs-mode": mode }))];
}

const fileOf = ({ source, target, uid, gid, mode }: NonNullable<ComposeService["secrets"]>[number]): string =>
  csv([
    `source=${source}`,
    ...(target ? [`target=${target}`] : []),
    ...(uid ? [`uid=${uid}`] : []),
    ...(gid ? [`gid=${gid}`] : []),
    ...(mode === undefined ? [] : [`mode=${typeof mode === "number" ? mode.toString(8) : mode}`]),
  ]);

function healthOf(check: ComposeService["healthcheck"]): string[] {
  if (!check) return [];
  const [kind, ...words] = check.test ?? [];
  if (check.disable || kind === "NONE") return ["--no-healthcheck"];
  return [
    ...(words.length > 0
      ? ["--health-cmd", kind === "CMD" ? words.map(quote).join(" ") : words.join(" ")]
      : []),
    ...given("--health-interval", check.interval),
    ...given("--health-timeout", check.timeout),
    ...given("--health-start-period", check.start_period),
    ...given("--health-retries", check.retries),
  ];
}

/** How a color's service is created. */
export interface Creation {
  args: string[];
  /** The values of the environment: in arguments, every user of this machine could read them. */
  environment: Record<string, string>;
}

/**
 * The command that creates a color's service, without replicas, from its part of the compose files. `image`: what the nodes pull; `id`: the image on
 * this machine. The network alias is the name of the Compose service, so nginx resolves the same name with both engines.
 */
export function creationOf(
  settings: Pick<Settings, "project">,
  color: Color,
  service: ComposeService,
  image: string,
  id: string,
): Creation {
  const values = Object.entries(service.environment ?? {}).map(
    ([name, value]) => [name, String(value ?? "")] as const,
  );
  const labels = Object.entries(service.labels ?? {}).map(([name, value]) => `${name}=${value ?? ""}`);
  const { driver, options } = service.logging ?? {};
  const memory = Number(service.mem_limit ?? 0);
  const args = [
    ...["service", "create", "--detach", "--quiet", "--with-registry-auth", "--no-resolve-image"],
    ...["--name", swarmServiceOf(settings, color), "--replicas", "0"],
    // A virtual IP would keep sending requests to stopped replicas; nginx balances by itself.
    ...["--endpoint-mode", "dnsrr"],
    ...["--network", csv([`name=${networkOf(settings)}`, `alias=${serviceOf(color)}`])],
    ...["--label", `${PROJECT}=${settings.project}`, "--label", `${IMAGE}=${id}`],
    ...each(labels, (label) => ["--label", label, "--container-label", label]),
    ...each(values, ([name, value]) => ["--env", isOfDocker(name) ? `${name}=${value}` : name]),
    ...(memory > 0 ? ["--limit-memory", String(memory)] : []),
    ...given("--limit-cpu", service.cpus),
    ...(service.pids_limit ? ["--limit-pids", String(service.pids_limit)] : []),
    ...each(service.cap_drop, (one) => ["--cap-drop", one]),
    ...each(service.cap_add, (one) => ["--cap-add", one]),
    ...(service.read_only ? ["--read-only"] : []),
    ...(service.init ? ["--init"] : []),
    ...each(service.tmpfs, tmpfsOf),
    ...each(service.volumes, mountOf),
    ...each(service.secrets, (one) => ["--secret", fileOf(one)]),
    ...each(service.configs, (one) => ["--config", fileOf(one)]),
    ...Object.entries(service.ulimits ?? {}).flatMap(([name, limit]) => [
      "--ulimit",
      `${name}=${typeof limit === "number" ? limit : `${limit.soft}:${limit.hard}`}`,
    ]),
    ...each(service.deploy?.placement?.constraints, (one) => ["--constraint", one]),
    ...given("--stop-grace-period", service.stop_grace_period),
    ...given("--stop-signal", service.stop_signal),
    ...given("--user", service.user),
    ...given("--workdir", service.working_dir),
    ...each(service.extra_hosts, (one) => ["--host", one.replace("=", ":")]),
    ...each(service.dns, (one) => ["--dns", one]),
    ...each(service.group_add, (one) => ["--group", String(one)]),
    ...Object.entries(service.sysctls ?? {}).flatMap(([name, value]) => ["--sysctl", `${name}=${value}`]),
    ...given("--log-driver", driver),
    ...Object.entries(options ?? {}).flatMap(([name, value]) => ["--log-opt", `${name}=${value}`]),
    ...healthOf(service.healthcheck),
    ...(service.entrypoint ? ["--entrypoint", service.entrypoint.map(quote).join(" ")] : []),
    image,
    ...(service.command ?? []),
  ];
  const environment = Object.fromEntries(values.filter(([name]) => !isOfDocker(name)));
  return { args, environment };
}
