import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Container } from "../../lib/docker/container.ts";
import { loadSettings } from "../../lib/settings.ts";
import { asContainer, serviceFrom, type Task } from "../../lib/swarm/services.ts";

const context = { settings: loadSettings({ COMPOSE_PROJECT_NAME: "loop" }, "/nonexistent", "nothing") };

const SERVICE = {
  name: "loop-api-green",
  id: "service-1",
  updated: "2026-11-26T08:00:00Z",
  labels: { "loop.project": "loop", "loop.image": "sha256:1", "loop.api-port": "9000" },
  mode: { Replicated: { Replicas: 3 } },
  image: "registry:5000/loop-api@sha256:1",
  mounts: [{ Source: "/vault", Target: "/vault" }],
};

let minute = 0;

const task = (slot: number, node: string, more: Partial<Task> = {}): Task => ({
  id: `task-${slot}-${node}`,
  service: "service-1",
  nodeId: `id-of-${node}`,
  slot,
  wanted: "running",
  state: "running",
  since: `2026-11-26T08:${String(++minute % 60).padStart(2, "0")}:00Z`,
  error: "",
  container: null,
  networks: [{ Network: { Spec: { Name: "loop-swarm" } }, Addresses: [`10.0.1.${slot}/24`] }],
  node,
  ...more,
});

const seen = (tasks: readonly Task[], service: Partial<typeof SERVICE> = {}): Container =>
  asContainer(context, serviceFrom(context, { ...SERVICE, ...service }, tasks));

test("a service with running replicas is a running color, with their addresses", () => {
  const { status, replicas, addresses, image, api, folders } = seen([
    task(1, "a"),
    task(2, "b"),
    task(3, "c"),
    task(4, "d", { service: "service-of-another-color" }),
  ]);
  assert.is(status, "running");
  assert.equal(
    replicas?.map(({ node }) => node),
    ["a", "b", "c"],
  );
  assert.equal(addresses, ["10.0.1.1", "10.0.1.2", "10.0.1.3"]);
  assert.equal(
    { image, port: api.port, folders },
    { image: "sha256:1", port: 9000, folders: { "/vault": "/vault" } },
  );
});

test("a replica on a node that is down does not hide its replacement", () => {
  const replaced = task(1, "down", { wanted: "shutdown" }); // nobody reports that it has ended
  const { replicas } = seen([task(1, "b"), replaced, task(2, "b"), task(3, "c")]);
  assert.equal(
    replicas?.map(({ node }) => node),
    ["b", "b", "c"],
  );
});

test("slots of a larger number of replicas, before, are not missing replicas", () => {
  const old = task(3, "c", { wanted: "shutdown", state: "shutdown" });
  const { replicas } = seen([task(1, "a"), task(2, "b"), old], { mode: { Replicated: { Replicas: 2 } } });
  assert.is(replicas?.length, 2);
});

test("a service without replicas is a stopped color", () => {
  const stopped = [1, 2, 3].map((slot) => task(slot, "a", { wanted: "shutdown", state: "shutdown" }));
  const { status, replicas } = seen(stopped, { mode: { Replicated: { Replicas: 0 } } });
  assert.equal({ status, replicas }, { status: "exited", replicas: [] });
});

test("failures count as restarts of each replica, and the reason is known", () => {
  const failed = [1, 2, 3, 1, 2, 3].map((slot) =>
    task(slot, "a", { wanted: "shutdown", state: "failed", error: "task: non-zero exit (1)" }),
  );
  const waiting = [1, 2, 3].map((slot) => task(slot, "", { wanted: "ready", state: "ready" }));
  const { status, restarts } = seen([...failed, ...waiting]);
  assert.equal({ status, restarts }, { status: "restarting", restarts: 2 });
  const service = serviceFrom(context, SERVICE, [...failed, ...waiting]);
  assert.is(service.lastFailure?.error, "task: non-zero exit (1)");
});

test("a service on standby with its replicas is a paused color", () => {
  const labels = { ...SERVICE.labels, "loop.standby": "yes" };
  const tasks = [task(1, "a"), task(2, "b"), task(3, "c")];
  assert.is(seen(tasks, { labels }).status, "paused");
  assert.is(seen([], { labels, mode: { Replicated: { Replicas: 0 } } }).status, "exited");
});

test("a service of the same name, but not of this tool, is an error", () => {
  for (const labels of [null, {}, { "loop.project": "another" }])
    assert.throws(
      () => serviceFrom(context, { ...SERVICE, labels: labels as never }, []),
      "The service loop-api-green does not belong to the project loop",
    );
});

test.run();
