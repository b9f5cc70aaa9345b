import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { apiOf, apiSettings, FIRST_API, isAuthPath } from "../../lib/api.ts";
import { renderAuth } from "../../lib/nginx/auth.ts";
import { knowsApis, renderUpstreams } from "../../lib/nginx/upstreams.ts";
import { loadSettings, ROOT } from "../../lib/settings.ts";

const FIRST = { blue: FIRST_API, green: FIRST_API };
const NODE = { port: 3000, healthPath: "/up", expect: { ok: true } };

test("a container without labels has the API of the first version, which is also the default", () => {
  assert.equal(apiOf({}), FIRST_API);
  assert.equal(loadSettings({}, "/nonexistent").api, FIRST_API);
});

test("labels describe the API, and an invalid label counts as missing", () => {
  const labels = (port: string, path: string, expect: string) =>
    apiOf({ "loop.api-port": port, "loop.health-path": path, "loop.health-expect": expect });
  assert.equal(labels("3000", "/up", '{"ok":true}'), NODE);
  assert.equal(labels("3000", "/up", "{}"), { ...NODE, expect: {} });
  assert.equal(labels("0", "/a b", "[]"), FIRST_API);
  assert.equal(labels("8081", "/../x", ""), FIRST_API);
});

test("the settings of an API are those that load it again", () => {
  for (const api of [FIRST_API, NODE, { ...NODE, expect: {} }])
    assert.equal(loadSettings(apiSettings(api), "/nonexistent").api, api);
});

test("the compose file labels both colors with the settings", async () => {
  const compose = await readFile(join(ROOT, "docker-compose.blue-green.yml"), "utf8");
  for (const [label, setting] of [
    ["loop.api-port", "API_PORT"],
    ["loop.health-path", "HEALTH_PATH"],
    ["loop.health-expect", "HEALTH_EXPECT"],
  ])
    assert.match(compose, `${label}: "\${${setting}:-`);
});

test("nginx's files in git are those of the default settings", async () => {
  const written = (name: string) => readFile(join(ROOT, "nginx", name), "utf8");
  assert.is(await written("api-upstreams.conf"), renderUpstreams(FIRST));
  assert.is(await written("auth.conf"), renderAuth({ auth: "on" }));
});

test("each color's upstreams have the port of that color", () => {
  const text = renderUpstreams({ blue: FIRST_API, green: NODE });
  assert.is(text.match(/server loop-api-blue:8081 /g)?.length, 3);
  assert.is(text.match(/server loop-api-green:3000 /g)?.length, 3);
  assert.is(text.match(/server loop-api-/g)?.length, 6);
});

test("nginx has to be reloaded only when it reports other ports, or none and an API differs from the first", () => {
  const answer = { healthy: true, finding: "" };
  assert.ok(knowsApis({ ...answer, ports: "8081 3000" }, { blue: FIRST_API, green: NODE }));
  assert.not.ok(knowsApis({ ...answer, ports: "8081 8081" }, { blue: FIRST_API, green: NODE }));
  assert.ok(knowsApis(answer, FIRST));
  assert.not.ok(knowsApis(answer, { blue: FIRST_API, green: { ...FIRST_API, healthPath: "/up" } }));
});

test("the paths that nginx sends to auth are known, and with AUTH=off there are none", () => {
  for (const path of ["/authorize", "/token/x", "/register/", "/.well-known/up"])
    assert.ok(isAuthPath(path), path);
  for (const path of ["/health", "/tokens", "/authorized", "/.well-known"])
    assert.not.ok(isAuthPath(path), path);
  assert.not.match(renderAuth({ auth: "off" }), "location");
});
test.run();
