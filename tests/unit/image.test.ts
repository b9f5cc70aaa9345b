import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { type Image, inspectImages, shortName } from "../../lib/docker/image.ts";
import { readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";

const IMAGE = {
  Id: "sha256:1",
  Created: "2026-01-01T00:00:00Z",
  Size: 1,
  Architecture: "amd64",
  Config: { Env: ["A=1"], Cmd: ["run"], Labels: { team: "a" } as Record<string, string> | null },
  RootFS: { Layers: ["sha256:a"] },
};

/** What `inspectImages` makes of an engine's output. */
async function inspect(names: string[], found: unknown[], stderr = ""): Promise<(Image | undefined)[]> {
  const docker = join(await tempFolder("image"), "docker");
  const script = `#!/bin/sh\ncat <<'END'\n${JSON.stringify(found)}\nEND\necho '${stderr}' >&2\nexit ${stderr ? 1 : 0}\n`;
  await writeFile(docker, script, { mode: 0o755 });
  const settings = loadSettings({ PATH: process.env.PATH, DOCKER_CMD: docker }, "/nonexistent", "nothing");
  return [...(await inspectImages(readOnlyContext(settings, createLog()), names))];
}

const contentOf = async (image: unknown): Promise<string | undefined> =>
  (await inspect(["x:1"], [image]))[0]?.content;

test("labels about the build do not count as content; everything else does", async () => {
  const { Config } = IMAGE;
  const [base, ...same] = await Promise.all([
    contentOf(IMAGE),
    contentOf({
      ...IMAGE,
      Id: "sha256:2",
      Config: {
        ...Config,
        Image: "sha256:parent",
        Labels: {
          "com.docker.compose.service": "loop-api-green",
          "org.opencontainers.image.revision": "4f2a",
          "org.opencontainers.image.created": "2026-01-02",
          team: "a",
        },
      },
    }),
    contentOf({ ...IMAGE, Config: { Labels: Config.Labels, Cmd: Config.Cmd, Env: Config.Env } }), // another order
  ]);
  assert.equal(same, [base, base]);
  for (const other of [
    { ...IMAGE, RootFS: { Layers: ["sha256:b"] } },
    { ...IMAGE, Config: { ...Config, Env: ["A=2"] } },
    { ...IMAGE, Config: { ...Config, Labels: { team: "b" } } },
  ])
    assert.is.not(await contentOf(other), base);
});

test("an image without a configuration, labels or build time is an image", async () => {
  const [image] = await inspect(["x:1"], [{ ...IMAGE, Config: null, Created: undefined, RootFS: {} }]);
  assert.equal([image?.id, image?.built, image?.revision], ["sha256:1", undefined, undefined]);
});

test("a missing image is found by the name that the engine looked up", async () => {
  const names = ["docker.io/me/api", "x:1"];
  for (const missing of ["me/api:latest", "docker.io/me/api:latest", "docker.io/me/api"]) {
    const images = await inspect(names, [IMAGE], `Error: No such image: ${missing}`);
    assert.equal(
      images.map((image) => image?.id),
      [undefined, "sha256:1"],
      missing,
    );
  }
  const hub = ["docker.io/library/nginx:1", "index.docker.io/me/api", "ghcr.io/me/api"];
  assert.equal(hub.map(shortName), ["nginx:1", "me/api", "ghcr.io/me/api"]);
});
test.run();
