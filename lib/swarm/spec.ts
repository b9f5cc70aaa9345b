import type { Color } from "../color.ts";
import { serviceOf } from "../docker/names.ts";
import type { Settings } from "../settings.ts";
import { quote } from "../util/quote.ts";
import { type Infer, z } from "../util/zod.ts";
import { IMAGE, networkOf, PROJECT, swarmServiceOf } from "./names.ts";

const Words = z.array(z.string()).nullish();
const Texts = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]).nullable()).nullish();
const File = z.object({
  source: z.string(),
  target: z.string().optional(),
  uid: z.string().optional(),
  gid: z.string().optional(),
  mode: z.union([z.string(), z.number()]).optional(),
});

/** A service of the compose files as `docker compose config` prints it, as far as a swarm's service can have the same. */
export const ComposeService = z.looseObject({
  command: Words,
  entrypoint: Words,
  environment: Texts,
  labels: Texts,
  mem_limit: z.union([z.string(), z.number()]).optional(),
  cpus: z.number().optional(),
  pids_limit: z.number().optional(),
  cap_add: Words,
  cap_drop: Words,
  read_only: z.boolean().optional(),
  tmpfs: Words,
  ulimits: z
    .record(z.string(), z.union([z.number(), z.object({ soft: z.number(), hard: z.number() })]))
    .optional(),
  stop_grace_period: z.string().optional(),
  stop_signal: z.string().optional(),
  user: z.string().optional(),
  working_dir: z.string().optional(),
  init: z.boolean().optional(),
  extra_hosts: Words,
  dns: Words,
  group_add: z.array(z.union([z.string(), z.number()])).optional(),
  sysctls: Texts,
  logging: z.object({ driver: z.string().optional(), options: Texts }).optional(),
  healthcheck: z
    .object({
      test: Words,
      interval: z.string().optional(),
      timeout: z.string().optional(),
      start_period: z.string().optional(),
      retries: z.number().optional(),
      disable: z.boolean().optional(),
    })
    .optional(),
  volumes: z
    .array(
      z.object({
        type: z.string(),
        source: z.string().optional(),
        target: z.string(),
        read_only: z.boolean().optional(),
        bind: z.looseObject({ propagation: z.string().optional() }).optional(),
        volume: z.looseObject({ nocopy: z.boolean().optional() }).optional(),
        tmpfs: z
          .looseObject({ size: z.union([z.string(), z.number()]).optional(), mode: z.number().optional() })
          .optional(),
        /** Of a named volume, added by `serviceIn`. */
        driver: z.string().optional(),
        driver_opts: Texts,
      }),
    )
    .optional(),
  secrets: z.array(File).optional(),
  configs: z.array(File).optional(),
  deploy: z.looseObject({ placement: z.looseObject({ constraints: Words }).optional() }).optional(),
});
export type ComposeService = Infer<typeof ComposeService>;

/** Named parts of the compose files: Docker may know them by another name. */
const Named = z
  .record(
    z.string(),
    z.looseObject({ name: z.string().optional(), driver: z.string().optional(), driver_opts: Texts }),
  )
  .nullish();

const Configuration = z.object({
  services: z.record(z.string(), ComposeService),
  volumes: Named,
  secrets: Named,
  configs: Named,
});

/** A service in what `docker compose config` prints, with the names that Docker knows its volumes, secrets and configs by. */
export function serviceIn(printed: unknown, name: string): ComposeService {
  const { services, volumes, secrets, configs } = Configuration.parse(printed);
  const service = services[name] ?? {};
  const inDocker = (named: Infer<typeof Named>, source: string): string => named?.[source]?.name ?? source;
  return {
    ...service,
    volumes: service.volumes?.map((one) =>
      one.type === "volume" && one.source
        ? {
            ...one,
            source: inDocker(volumes, one.source),
            driver: volumes?.[one.source]?.driver,
            driver_opts: volumes?.[one.source]?.driver_opts,
          }
        : one,
    ),
    secrets: service.secrets?.map((one) => ({
      ...one,
      target: one.target ?? one.source,
      source: inDocker(secrets, one.source),
    })),
    configs: service.configs?.map((one) => ({
      ...one,
      target: one.target ?? `/${one.source}`,
      source: inDocker(configs, one.source),
    })),
  };
}

/** Compose settings that are left out without a warning: a swarm does not need them, or sets them in another way. */
const NOT_NEEDED = [
  ...["build", "container_name", "image", "ports", "profiles", "restart", "security_opt"],
  ...["depends_on", "pull_policy", "expose", "mem_swappiness"],
];

/** Compose's own network has no replicas in it; nginx reaches them through their own network. */
const isDefaultNetwork = (key: string, value: unknown): boolean =>
  key === "networks" && Object.keys(value ?? {}).join() === "default";

/** Settings of the compose files that the service of a color does not get. */
export const unsupported = (service: ComposeService): string[] => [
  ...Object.entries(service)
    .filter(([key, value]) => !isDefaultNetwork(key, value))
    .filter(([key, value]) => !(key in ComposeService.shape) && !NOT_NEEDED.includes(key) && !isEmpty(value))
    .map(([key]) => key),
  ...keysBut(service.deploy, ["placement"]).map((key) => `deploy.${key}`),
  ...keysBut(service.deploy?.placement, ["constraints"]).map((key) => `deploy.placement.${key}`),
  ...(service.tmpfs ?? [])
    .flatMap(tmpfsOptions)
    .flatMap(([name]) => (TMPFS_KNOWN.includes(name) ? [] : [`tmpfs ${name}`])),
  ...(service.volumes ?? []).flatMap(({ target, bind, volume, tmpfs }) =>
    [
      ...keysBut(bind, ["propagation", "create_host_path"]), // Swarm never creates a folder
      ...keysBut(volume, ["nocopy"]),
      ...keysBut(tmpfs, ["size", "mode"]),
    ].map((key) => `${key} of ${target}`),
  ),
];

/** The keys of what is set, other than these. */
const keysBut = (value: object | undefined, known: readonly string[]): string[] =>
  Object.entries(value ?? {})
    .filter(([key, inner]) => !known.includes(key) && !isEmpty(inner))
    .map(([key]) => key);

const isEmpty = (value: unknown): boolean =>
  value === "" ||
  value === false ||
  value === null ||
  value === undefined ||
  (typeof value === "object" && Object.keys(value).length === 0);

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

/** Options of a tmpfs in the short form. Docker always sets the first four. */
const [TMPFS_ALWAYS, TMPFS_KNOWN] = [
  ["rw", "noexec", "nosuid", "nodev"],
  ["size", "mode"],
];

const tmpfsOptions = (text: string): [name: string, value: string][] =>
  (text.split(":")[1] ?? "")
    .split(",")
    .filter((one) => one !== "" && !TMPFS_ALWAYS.includes(one))
    .map((one) => [one.split("=")[0] ?? "", one.split("=")[1] ?? ""]);

function tmpfsOf(text: string): string[] {
  const { size, mode } = Object.fromEntries(tmpfsOptions(text));
  const [target = ""] = text.split(":");
  return ["--mount", csv(mountFields({ type: "tmpfs", target, "tmpfs-size": size, "tmpfs-mode": mode }))];
}

const fileOf = ({ source, target, uid, gid, mode }: Infer<typeof File>): string =>
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
    ...["--name", swarmServiceOf(settings as Settings, color), "--replicas", "0"],
    // A virtual IP would keep sending requests to stopped replicas; nginx balances by itself.
    ...["--endpoint-mode", "dnsrr"],
    ...["--network", csv([`name=${networkOf(settings as Settings)}`, `alias=${serviceOf(color)}`])],
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
