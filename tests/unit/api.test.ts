import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Api, apiOf, apiSettings, FIRST_API, isAuthPath } from "../../lib/api.ts";
import { renderAuth } from "../../lib/nginx/auth.ts";
import { connectionLines } from "../../lib/nginx/connections.ts";
import { knowsApis, renderUpstreams } from "../../lib/nginx/upstreams.ts";
import { loadSettings, ROOT } from "../../lib/settings.ts";

const FIRST = { blue: FIRST_API, green: FIRST_API };
const NODE: Api = { port: 3000, healthPath: "/up", expect: { ok: true }, auth: "off", idleSeconds: 0.5 };

test("a container without labels has the API of the first version, which is also the default", () => {
  assert.equal(apiOf({}), FIRST_API);
  assert.equal(loadSettings({}, "/nonexistent").api, FIRST_API);
});

test("labels describe the API, and an invalid label counts as missing", () => {
  const labels = (port: string, path: string, expect: string, auth: string, idle: string) =>
    apiOf({
      "loop.api-port": port,
      "loop.health-path": path,
      "loop.health-expect": expect,
      "loop.auth": auth,
      "loop.api-idle": idle,
    });
  assert.equal(labels("3000", "/up", '{"ok":true}', "off", "0.5"), NODE);
  assert.equal(labels("3000", "/up", "{}", "off", "0.5"), { ...NODE, expect: {} });
  assert.equal(labels("0", "/a b", "[]", "maybe", "-1"), FIRST_API);
  assert.equal(labels("8081", "/../x", "", "", ""), FIRST_API);
});

test("a container without a label for its idle time has that of the settings, as before there was one", () => {
  assert.is(apiOf({}, 0.4).idleSeconds, 0.4);
  assert.is(apiOf({ "loop.api-idle": "1" }, 0.4).idleSeconds, 1);
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
    ["loop.auth", "AUTH"],
    ["loop.api-idle", "API_IDLE_SECONDS"],
  ])
    assert.match(compose, `${label}: "\${${setting}:-`);
});

test("nginx's files in git are those of the default settings", async () => {
  const written = (name: string) => readFile(join(ROOT, "nginx", name), "utf8");
  assert.is(await written("api-upstreams.conf"), renderUpstreams(FIRST));
  assert.is(await written("auth.conf"), renderAuth(FIRST));
});

test("each color's upstreams have the port and the idle time of that color", () => {
  const text = renderUpstreams({ blue: FIRST_API, green: NODE });
  assert.is(text.match(/server loop-api-blue:8081 /g)?.length, 3);
  assert.is(text.match(/server loop-api-green:3000 /g)?.length, 3);
  assert.is(text.match(/server loop-api-/g)?.length, 6);
  const [blue, green] = text.split("upstream loop_api_green {");
  assert.is(blue?.match(/keepalive_timeout 1000ms;/g)?.length, 3);
  assert.is(green?.match(/keepalive_timeout 250ms;/g)?.length, 3);
  assert.is(text.match(/keepalive_timeout/g)?.length, 6);
});

test("nginx has to be reloaded only when it reports other ports, or none and an API differs from the first", () => {
  const answer = { healthy: true, finding: "" };
  assert.ok(knowsApis({ ...answer, ports: "8081 3000" }, { blue: FIRST_API, green: NODE }));
  assert.not.ok(knowsApis({ ...answer, ports: "8081 8081" }, { blue: FIRST_API, green: NODE }));
  assert.ok(knowsApis(answer, FIRST));
  assert.not.ok(knowsApis(answer, { blue: FIRST_API, green: { ...FIRST_API, healthPath: "/up" } }));
});

test("in a swarm, nginx has to be reloaded when it still has the configuration for containers", () => {
  const answer = { healthy: true, finding: "" };
  const [, ports] = renderUpstreams(FIRST, "swarm").match(/1 "(8081 8081 .*)"/) ?? [];
  assert.ok(knowsApis({ ...answer, ports: ports ?? "" }, FIRST, "swarm"));
  assert.not.ok(knowsApis({ ...answer, ports: "8081 8081" }, FIRST, "swarm"));
  assert.not.ok(knowsApis(answer, FIRST, "swarm"));
  assert.not.ok(knowsApis({ ...answer, ports: ports ?? "" }, FIRST));
});

test("nginx keeps idle connections half as long as the API, 1 s at most, and none with API_IDLE_SECONDS=0", () => {
  assert.equal(connectionLines({ idleSeconds: 0.5 }), ["keepalive 512;", "keepalive_timeout 250ms;"]);
  assert.equal(connectionLines({ idleSeconds: 60 }), connectionLines({ idleSeconds: 2 }));
  assert.equal(connectionLines({ idleSeconds: 0 }), ["keepalive 0;"]);
});

test("nginx needs no reload for the auth and the idle time of a color that gets no requests yet", () => {
  const answer = { healthy: true, finding: "", ports: "8081 8081" };
  const green: Api = { ...FIRST_API, auth: "off", idleSeconds: 0 };
  assert.ok(knowsApis(answer, { blue: FIRST_API, green }));
  assert.ok(knowsApis({ healthy: true, finding: "" }, { blue: FIRST_API, green }));
});

test("the paths that nginx sends to auth are known", () => {
  for (const path of ["/authorize", "/token/x", "/register/", "/.well-known/up"])
    assert.ok(isAuthPath(path), path);
  for (const path of ["/health", "/tokens", "/authorized", "/.well-known"])
    assert.not.ok(isAuthPath(path), path);
});

test("only the colors with AUTH=on have auth", () => {
  const colors = (text: string) => text.match(/^ +(blue|green) 1;$/gm)?.map((line) => line.trim()) ?? [];
  assert.equal(colors(renderAuth(FIRST)), ["blue 1;", "green 1;"]);
  assert.equal(colors(renderAuth({ blue: FIRST_API, green: NODE })), ["blue 1;"]);
  assert.equal(colors(renderAuth({ blue: NODE, green: NODE })), []);
});
test.run();
