import { test } from "uvu";
import * as assert from "uvu/assert";
import { ComposeService, serviceIn, unsupported } from "../../lib/swarm/compose-service.ts";
import { creationOf } from "../../lib/swarm/spec.ts";

const SETTINGS = { project: "loop" };
const IMAGE = "registry:5000/loop-api@sha256:1";

const create = (service: object) =>
  creationOf(SETTINGS, "green", ComposeService.parse(service), IMAGE, "sha256:local");

/** The values of an option, in order. */
const valuesOf = (args: readonly string[], option: string): string[] =>
  args.flatMap((arg, i) => (arg === option ? [args[i + 1] ?? ""] : []));

test("what the compose file says of a color, its service in the swarm has too", () => {
  const { args } = create({
    mem_limit: "1073741824",
    pids_limit: 512,
    cap_drop: ["ALL"],
    cap_add: ["DAC_OVERRIDE"],
    read_only: true,
    tmpfs: ["/tmp:size=256m,noexec,mode=1770"],
    ulimits: { nofile: { soft: 16384, hard: 16385 }, nproc: 10 },
    stop_grace_period: "30s",
    labels: { "loop.api-port": "8081" },
    volumes: [
      { type: "bind", source: '/a "b", c', target: "/vault", bind: { create_host_path: true } },
      { type: "bind", source: "/oauth", target: "/oauth-data", read_only: true },
    ],
    secrets: [{ source: "token", target: "/run/secrets/token", mode: "0400" }],
    healthcheck: { test: ["CMD", "curl", "-f", "a b"], interval: "5s", retries: 3 },
    command: ["python3", "-m", "api main"],
  });
  assert.equal(args.slice(0, 2), ["service", "create"]);
  assert.equal(args.slice(-4), [IMAGE, "python3", "-m", "api main"]);
  const expected: Record<string, string[]> = {
    "--name": ["loop-api-green"],
    "--replicas": ["0"],
    "--endpoint-mode": ["dnsrr"],
    "--network": ["name=loop-swarm,alias=loop-api-green"],
    "--label": ["loop.project=loop", "loop.image=sha256:local", "loop.api-port=8081"],
    "--container-label": ["loop.api-port=8081"],
    "--limit-memory": ["1073741824"],
    "--limit-pids": ["512"],
    "--cap-drop": ["ALL"],
    "--cap-add": ["DAC_OVERRIDE"],
    "--mount": [
      "type=tmpfs,target=/tmp,tmpfs-size=256m,tmpfs-mode=1770",
      'type=bind,"source=/a ""b"", c",target=/vault',
      "type=bind,source=/oauth,target=/oauth-data,readonly",
    ],
    "--ulimit": ["nofile=16384:16385", "nproc=10"],
    "--stop-grace-period": ["30s"],
    "--secret": ["source=token,target=/run/secrets/token,mode=0400"],
    "--health-cmd": ["curl -f 'a b'"],
    "--health-interval": ["5s"],
    "--health-retries": ["3"],
  };
  for (const [option, values] of Object.entries(expected))
    assert.equal(valuesOf(args, option), values, option);
  assert.ok(args.includes("--read-only"));
});

test("the environment does not stand in the arguments, unless it would change the docker command", () => {
  const { args, environment } = create({ environment: { TOKEN: "secret", EMPTY: null, DOCKER_HOST: "x" } });
  assert.equal(valuesOf(args, "--env"), ["TOKEN", "EMPTY", "DOCKER_HOST=x"]);
  assert.equal(environment, { TOKEN: "secret", EMPTY: "" });
});

test("a volume keeps its driver and options: without them, each node would have an empty volume of its own", () => {
  const printed = {
    services: {
      api: {
        volumes: [
          { type: "volume", source: "data", target: "/data", volume: { nocopy: true } },
          { type: "tmpfs", target: "/big", tmpfs: { size: "67108864", mode: 0o1777 } },
        ],
      },
    },
    volumes: { data: { name: "loop_data", driver: "local", driver_opts: { type: "nfs", o: "addr=nas,rw" } } },
  };
  const service = serviceIn(printed, "api");
  assert.equal(valuesOf(create(service).args, "--mount"), [
    'type=volume,source=loop_data,target=/data,volume-driver=local,volume-nocopy=true,volume-opt=type=nfs,"volume-opt=o=addr=nas,rw"',
    "type=tmpfs,target=/big,tmpfs-size=67108864,tmpfs-mode=1777",
  ]);
  assert.equal(unsupported(service), []);
});

test("what a swarm cannot have of a mount is named", () => {
  const service = ComposeService.parse({
    tmpfs: ["/tmp:size=1m,uid=1000"],
    volumes: [
      { type: "bind", source: "/a", target: "/b", bind: { create_host_path: true, selinux: "z" } },
      { type: "volume", source: "c", target: "/d", volume: { subpath: "e" } },
    ],
  });
  assert.equal(unsupported(service), ["tmpfs uid", "selinux of /b", "subpath of /d"]);
});

test("an empty folder in place of the vault stays empty and small", () => {
  const { args } = create({ volumes: [{ type: "tmpfs", target: "/vault", read_only: true }] });
  assert.equal(valuesOf(args, "--mount"), ["type=tmpfs,target=/vault,tmpfs-size=4096"]);
});

test("what a swarm cannot have is named, and what it does not need is not", () => {
  const service = ComposeService.parse({
    build: {},
    restart: "unless-stopped",
    networks: { default: null },
    privileged: true,
    devices: ["/dev/dri"],
    ipc: "",
    shm_size: undefined,
  });
  assert.equal(unsupported(service), ["privileged", "devices"]);
  const placed = ComposeService.parse({
    deploy: {
      resources: {},
      replicas: 5,
      placement: { constraints: ["node.role == worker"], preferences: [{ spread: "a" }] },
    },
  });
  assert.equal(unsupported(placed), ["deploy.replicas", "deploy.placement.preferences"]);
  assert.equal(valuesOf(create(placed).args, "--constraint"), ["node.role == worker"]);
  const elsewhere = ComposeService.parse({ networks: { default: null, databases: null } });
  assert.equal(unsupported(elsewhere), ["networks"]);
});
test.run();
