import { type Infer, z } from "../util/zod.ts";

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

/** Options of a tmpfs in the short form. Docker always sets the first four. */
const [TMPFS_ALWAYS, TMPFS_KNOWN] = [
  ["rw", "noexec", "nosuid", "nodev"],
  ["size", "mode"],
];

/** The options of a tmpfs, without those that Docker always sets. */
export const tmpfsOptions = (text: string): [name: string, value: string][] =>
  (text.split(":")[1] ?? "")
    .split(",")
    .filter((one) => one !== "" && !TMPFS_ALWAYS.includes(one))
    .map((one) => [one.split("=")[0] ?? "", one.split("=")[1] ?? ""]);

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
