import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../bench/testbed/temp.ts";
import { type Api, type Apis, FIRST_API } from "../../lib/api.ts";
import { probeNginx } from "../../lib/nginx/probe.ts";
import type { Settings } from "../../lib/settings.ts";
import type { Answer } from "../../lib/util/http-probe.ts";

const NODE: Api = { ...FIRST_API, port: 3000, healthPath: "/up", expect: { ok: true } };
const MIXED: Apis = { blue: FIRST_API, green: NODE };
const HEALTHY = { "/health": FIRST_API.expect, "/up": { ok: true } };

/** Probes an nginx that sends everything to one color, which answers with these bodies. Returns the paths that it was asked. */
async function probe(
  apis: Apis,
  color: string,
  bodies: Record<string, unknown>,
): Promise<{ answer: Answer; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer(({ url = "" }, response) => {
    asked.push(url);
    const body = bodies[url];
    response.writeHead(body ? 200 : 404, { "x-loop-color": color }).end(JSON.stringify(body ?? {}));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const folder = await tempFolder("probe");
  await writeFile(join(folder, "apis.json"), JSON.stringify({ colors: apis, images: [], created: {} }));
  const nginxUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const settings = { nginxUrl, nginxFolder: folder, stateDir: folder, health: { timeout: 2 } };
  try {
    return { answer: await probeNginx(settings as unknown as Settings), asked };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("while both colors have the same API, nginx is asked once", async () => {
  for (const color of ["blue", "green"]) {
    const { answer, asked } = await probe({ blue: NODE, green: NODE }, color, HEALTHY);
    assert.equal([answer.healthy, answer.color, asked], [true, color, ["/up"]]);
  }
});

test("while the colors differ, the one that answers is judged by its own health path and expectation", async () => {
  for (const color of ["blue", "green"]) {
    const { answer } = await probe(MIXED, color, HEALTHY);
    assert.equal([answer.healthy, answer.color], [true, color]);
  }
});

test("a color that is healthy only by the rules of the other one is not healthy", async () => {
  const onOtherPath = await probe(MIXED, "green", { "/health": FIRST_API.expect, "/up": { ok: false } });
  assert.is(onOtherPath.answer.healthy, false);
  assert.match(onOtherPath.answer.finding, "ok is false, expected true");
  const samePath: Apis = { blue: FIRST_API, green: { ...FIRST_API, expect: { ok: true } } };
  assert.is((await probe(samePath, "green", HEALTHY)).answer.healthy, false);
  assert.is((await probe(samePath, "blue", HEALTHY)).answer.healthy, true);
});

test("a response without a color proves nothing", async () => {
  assert.is((await probe(MIXED, "red", HEALTHY)).answer.healthy, false);
});
test.run();
