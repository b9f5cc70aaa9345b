import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { FIRST_API } from "../../lib/api.ts";
import { checkSource, imageToTry, withoutNewImages } from "../../lib/doctor/image.ts";
import { type Context, readOnlyContext } from "../../lib/run/context.ts";
import { createLog } from "../../lib/run/log.ts";
import { loadSettings } from "../../lib/settings.ts";
import { suite } from "../suite.ts";

interface Bed {
  folder: string;
  context(env?: Record<string, string>): Context;
  /** Sets the ids of the images that the engine has. */
  have(images: Record<string, string>): Promise<void>;
  /** The commands that change images. */
  changes(): Promise<string[]>;
}

const images = suite<Bed>("images of the doctor");
images.before.each(async (bed) => {
  bed.folder = await tempFolder("doctor-image");
  const { folder } = bed;
  await mkdir(join(folder, "images"));
  // An engine whose images are files, with / as _.
  await writeFile(
    join(folder, "docker"),
    `#!/bin/sh
[ "$1 $2" != "container inspect" ] || exec cat '${folder}/containers'
[ "$1 $2" = "image inspect" ] || { echo "$*" >>'${folder}/changes'; exit 0; }
shift 2
found= code=0
for name; do
  file="${folder}/images/$(printf %s "$name" | tr / _)"
  if [ -e "$file" ]; then found="$found\${found:+,}$(cat "$file")"
  else echo "Error: No such image: $name" >&2; code=1; fi
done
echo "[$found]"
exit $code
`,
    { mode: 0o755 },
  );
  bed.context = (env = {}) =>
    readOnlyContext(
      loadSettings(
        { PATH: process.env.PATH, DOCKER_CMD: join(folder, "docker"), ...env },
        "/nonexistent",
        "nothing",
      ),
      createLog(),
    );
  bed.have = async (ids) => {
    await rm(join(folder, "images"), { recursive: true });
    await mkdir(join(folder, "images"));
    for (const [name, id] of Object.entries(ids)) {
      const [Id = "", Created = ""] = id.split(" ");
      const image = { Id, Created, Size: 1, Architecture: "amd64", Config: { Labels: null }, RootFS: {} };
      await writeFile(join(folder, "images", name.replaceAll("/", "_")), JSON.stringify(image));
    }
  };
  bed.changes = async () =>
    (await readFile(join(folder, "changes"), "utf8").catch(() => "")).split("\n").filter(Boolean);
});
images.after.each(({ folder }) => rm(folder, { recursive: true }));

const REFERENCE = "registry.test/me/api:1";

images("an image that was pulled is removed, also after a failure", async ({ context, have, changes }) => {
  await have({ "nginx:1.30": "sha256:n" });
  const failing = withoutNewImages(context({ LOOP_API_IMAGE: REFERENCE }), async () => {
    await have({ "nginx:1.30": "sha256:n", [REFERENCE]: "sha256:new" });
    throw new Error("failed");
  });
  await failing.then(assert.unreachable, (error) => assert.match(error.message, "failed"));
  assert.equal(await changes(), [`rmi ${REFERENCE}`]);
});

images("a tag that a pull has moved is moved back", async ({ context, have, changes }) => {
  await have({ "nginx:1.30": "sha256:n", [REFERENCE]: "sha256:old" });
  await withoutNewImages(context({ LOOP_API_IMAGE: REFERENCE }), () =>
    have({ "nginx:1.30": "sha256:n", [REFERENCE]: "sha256:new" }),
  );
  assert.equal(await changes(), [`tag sha256:old ${REFERENCE}`, "rmi sha256:new"]);
});

images("images that were there stay", async ({ context, have, changes }) => {
  await have({ "nginx:1.30": "sha256:n" });
  await withoutNewImages(context(), async () => undefined);
  assert.equal(await changes(), []);
});

images("a trial uses LOOP_API_IMAGE, else the newest image of a color", async ({ context, have }) => {
  await have({});
  assert.is(await imageToTry(context()), undefined);
  assert.is(await imageToTry(context({ LOOP_API_IMAGE: REFERENCE })), REFERENCE);
  await have({ "loop-api:blue": "sha256:b 2026-01-01T00:00:00Z" });
  assert.is(await imageToTry(context()), "loop-api:blue");
  await have({
    "loop-api:blue": "sha256:b 2026-01-01T00:00:00Z",
    "loop-api:green": "sha256:g 2026-01-02T00:00:00Z",
  });
  assert.is(await imageToTry(context()), "loop-api:green");
});

images("a trial does not use the image of a color with another API", async ({ folder, context, have }) => {
  await have({
    "loop-api:blue": "sha256:b 2026-01-01T00:00:00Z",
    "loop-api:green": "sha256:g 2026-01-02T00:00:00Z",
  });
  const [blue, green] = [FIRST_API, { ...FIRST_API, port: 3000 }];
  await writeFile(
    join(folder, "apis.json"),
    JSON.stringify({ colors: { blue, green }, images: [], created: {} }),
  );
  const env = { STATE_DIR: folder };
  assert.is(await imageToTry(context(env)), "loop-api:blue");
  assert.is(await imageToTry(context({ ...env, API_PORT: "3000" })), "loop-api:green");
  assert.is(await imageToTry(context({ ...env, HEALTH_PATH: "/up" })), undefined);
});

images(
  "what a color was created with is known from its container, before any run has recorded it",
  async (bed) => {
    await bed.have({
      "loop-api:blue": "sha256:b 2026-01-01T00:00:00Z",
      "loop-api:green": "sha256:g 2026-01-02T00:00:00Z",
    });
    const containers = ["blue", "green"].map((color) =>
      JSON.stringify({
        ...{ name: `/loop-api-${color}`, id: color, pid: 0, started: "", image: `sha256:${color[0]}` },
        ...{ restarts: 0, status: "exited", exitCode: 0, policy: "unless-stopped", networks: {} },
        ...{ ports: null, mounts: null, labels: { "com.docker.compose.project": "loop" } },
      }),
    );
    await writeFile(join(bed.folder, "containers"), `${containers.join("\n")}\n`);
    const env = { STATE_DIR: join(bed.folder, "state") };
    assert.is(await imageToTry(bed.context(env)), "loop-api:green");
    assert.is(await imageToTry(bed.context({ ...env, API_PORT: "3000" })), undefined);
  },
);

images("sources without a Dockerfile are a problem, unless a compose file may name another", async (bed) => {
  const env = { LOOP_API_CONTEXT: bed.folder };
  const { level, finding } = await checkSource(bed.context(env));
  assert.is(level, "problem");
  assert.match(finding, `${bed.folder}/Dockerfile does not exist`);
  assert.is((await checkSource(bed.context({ ...env, COMPOSE_FILE: "a.yml:b.yml" }))).level, "warning");
  await writeFile(join(bed.folder, "Dockerfile"), "FROM scratch\n");
  assert.is((await checkSource(bed.context(env))).level, "ok");
});
images.run();
