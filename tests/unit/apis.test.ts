import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { type Api, FIRST_API } from "../../lib/api.ts";
import type { Container } from "../../lib/docker/container.ts";
import { apiOfImage, readApis, recordApis, recordCreated } from "../../lib/engine/apis.ts";
import { StateFileError } from "../../lib/errors.ts";
import type { Context } from "../../lib/run/context.ts";

const NODE: Api = { ...FIRST_API, port: 3000, healthPath: "/up", expect: { ok: true }, auth: "off" };
const NEXT: Api = { ...FIRST_API, port: 4000, healthPath: "/", expect: {}, idleSeconds: 0 };

/** A run whose settings say NEXT. */
async function createRun(dryRun = false) {
  const settings = { stateDir: await tempFolder("apis"), api: NEXT, keepReleases: 1 };
  const warnings: string[] = [];
  const log = { warn: (text: string) => warnings.push(text) };
  const context = { settings, options: { dryRun }, log } as unknown as Context;
  return { settings, context, warnings, file: join(settings.stateDir, "apis.json") };
}

const container = (image: string, api: Api, more: Partial<Container> = {}): Container =>
  ({ status: "running", discarded: false, image, api, ...more }) as Container;
const ABSENT = container("", FIRST_API, { status: "absent" });

test("a color has the API of its container; without a record, that of the settings", async () => {
  const { settings, context } = await createRun();
  assert.equal(readApis(settings), { blue: NEXT, green: NEXT });
  await recordApis(context, { blue: container("1", NODE), green: ABSENT });
  assert.equal(readApis(settings), { blue: NODE, green: NEXT });
});

test("a color whose container is gone keeps its record, and a container that exists corrects it", async () => {
  const { settings, context } = await createRun();
  await recordApis(context, { blue: container("1", NODE), green: container("2", FIRST_API) });
  await recordApis(context, { blue: ABSENT, green: container("2", NODE, { status: "exited" }) });
  assert.equal(readApis(settings), { blue: NODE, green: NODE });
});

test("a container that was just created changes only the record of its color", async () => {
  const { settings, context } = await createRun();
  await recordApis(context, { blue: container("1", NODE), green: container("2", FIRST_API) });
  await recordCreated(context, "green", container("3", NEXT));
  assert.equal(readApis(settings), { blue: NODE, green: NEXT });
  assert.equal(apiOfImage(settings, "2"), FIRST_API);
});

test("an image keeps the API that it ran with, unless it is that of a failed release", async () => {
  const { settings, context } = await createRun();
  await recordApis(context, { blue: container("1", NODE), green: container("2", FIRST_API) });
  await recordApis(context, { blue: container("3", FIRST_API, { discarded: true }), green: ABSENT });
  assert.equal(apiOfImage(settings, "1"), NODE);
  assert.equal(apiOfImage(settings, "3"), NEXT, "not known, so as the settings say");
});

test("an image whose container is removed before the next run keeps the API that the container was created with", async () => {
  const { settings, context } = await createRun();
  await recordCreated(context, "green", container("1", NODE));
  await recordApis(context, { blue: ABSENT, green: ABSENT });
  assert.equal(apiOfImage(settings, "1"), NODE);
  await recordCreated(context, "green", container("2", FIRST_API));
  await recordApis(context, { blue: ABSENT, green: container("2", FIRST_API) });
  assert.equal(apiOfImage(settings, "1"), NODE, "also when the color has another image");
});

test("an image that failed with other settings keeps the API that it ran with before", async () => {
  const { settings, context } = await createRun();
  await recordApis(context, { blue: container("1", NODE), green: ABSENT });
  await recordCreated(context, "green", container("1", FIRST_API));
  await recordApis(context, {
    blue: container("1", NODE),
    green: container("1", FIRST_API, { discarded: true }),
  });
  await recordApis(context, { blue: ABSENT, green: ABSENT });
  assert.equal(apiOfImage(settings, "1"), NODE);
});

test("the images of many releases do not fill the record", async () => {
  const { settings, context, file } = await createRun();
  for (let i = 0; i < 30; i++) await recordApis(context, { blue: container(`${i}`, NODE), green: ABSENT });
  assert.is(JSON.parse(await readFile(file, "utf8")).images.length, 11);
  assert.equal(apiOfImage(settings, "29"), NODE);
});

test("a damaged record counts as none, and is written again", async () => {
  const { settings, context, file } = await createRun();
  for (const text of ["", "{", '{"colors":{"blue":{"port":0,"healthPath":"/","expect":{}}},"images":[]}']) {
    await writeFile(file, text);
    assert.equal(readApis(settings), { blue: NEXT, green: NEXT }, text);
  }
  await recordApis(context, { blue: container("1", NODE), green: ABSENT });
  assert.equal(readApis(settings).blue, NODE);
});

test("a record that cannot be written ends the run if a color's entry would be wrong; else it is a warning", async () => {
  const { settings, context, warnings, file } = await createRun();
  await recordApis(context, { blue: container("1", NODE), green: ABSENT });
  await mkdir(join(settings.stateDir, ".apis.json.tmp")); // not even root can write a file there
  await recordApis(context, { blue: container("2", NODE), green: ABSENT });
  assert.match(warnings.join(), `Cannot record the APIs of the colors in ${file}`);
  const wrong = await recordApis(context, { blue: container("2", NEXT), green: ABSENT }).catch(
    (error) => error,
  );
  assert.instance(wrong, StateFileError);
  assert.is(warnings.length, 1);
});

test("a dry run records nothing", async () => {
  const { settings, context } = await createRun(true);
  await recordApis(context, { blue: container("1", NODE), green: ABSENT });
  await recordCreated(context, "green", container("2", NODE));
  assert.equal(readApis(settings), { blue: NEXT, green: NEXT });
});
test.run();
