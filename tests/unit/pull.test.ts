import { test } from "uvu";
import * as assert from "uvu/assert";
import { pullFailed, repositoryOf } from "../../lib/docker/pull.ts";
import { describeSource } from "../../lib/release/pull.ts";

const IMAGE = "registry.example:5000/me/api:1.4";

/** What Docker 20.10 and 28 print, and what an owner reads. */
const FAILURES: Record<string, [what: RegExp, next: RegExp]> = {
  "write /var/lib/docker/tmp/GetImageBlob4176058390: no space left on device": [
    /the disk is full/,
    /Free some space/,
  ],
  "failed to register layer: write /usr/lib/x: no space left on device": [/the disk is full/, /Free/],
  "Error response from daemon: manifest for registry.example:5000/me/api:1.4 not found: manifest unknown: manifest unknown":
    [/the registry does not have it/, /it was pushed/],
  'Error response from daemon: Head "http://registry.example:5000/v2/me/api/manifests/1.4": no basic auth credentials':
    [/requires a login/, /docker login registry\.example:5000/],
  'Error response from daemon: Head "https://registry.example/v2/me/api/manifests/1.4": unauthorized: authentication required':
    [/requires a login/, /docker login/],
  'Error response from daemon: Head "https://ghcr.io/v2/me/api/manifests/1.4": denied: denied': [
    /requires a login, or this user may not/,
    /docker login/,
  ],
  "Error response from daemon: pull access denied for me/api, repository does not exist or may require 'docker login': denied: requested access to the resource is denied":
    [/does not exist, or this user may not pull it/, /Check its name/],
  "no matching manifest for linux/arm64/v8 in the manifest list entries": [/architecture/, /Build and push/],
  "toomanyrequests: You have reached your pull rate limit.": [/no more pulls for now/, /Wait/],
  'Error response from daemon: Get "http://127.0.0.1:5503/v2/": dial tcp 127.0.0.1:5503: connect: connection refused':
    [/cannot be reached/, /the registry runs/],
  'Error response from daemon: Get "https://nohost.invalid/v2/": dial tcp: lookup nohost.invalid on 192.0.2.53:53: no such host':
    [/cannot be reached/, /DNS/],
  'Error response from daemon: Get "https://registry.example:5000/v2/": http: server gave HTTP response to HTTPS client':
    [/does not use HTTPS/, /insecure-registries/],
  'Error response from daemon: Get "https://registry.example:5000/v2/": x509: certificate signed by unknown authority':
    [/certificate/, /clock/],
  "something new": [/Docker reports an error/, /Fix what Docker reports/],
};

test("each failure of a pull says in words what happened and what to do", () => {
  for (const [output, [what, next]] of Object.entries(FAILURES)) {
    const error = pullFailed(IMAGE, output);
    assert.match(error.message, /^registry\.example:5000\/me\/api:1\.4 cannot be pulled: /, output);
    assert.match(error.message, what, output);
    assert.match(error.next, next, output);
    assert.match(error.next, /then deploy again; the serving color was not touched\.$/);
    assert.is(error.details, output);
    assert.is(error.exitCode, 1);
  }
});

test("a login for Docker Hub names no registry", () => {
  assert.match(pullFailed("me/api:1", "unauthorized").next, /: docker login, then/);
  assert.match(pullFailed("localhost/api:1", "unauthorized").next, /: docker login localhost, then/);
});

test("the repository of a reference is what is before its tag and digest", () => {
  const digest = `@sha256:${"a".repeat(64)}`;
  assert.equal(
    ["api", "me/api:1", `me/api:1${digest}`, "host:5000/api", `host:5000/me/api${digest}`].map(repositoryOf),
    ["api", "me/api", "me/api", "host:5000/api", "host:5000/me/api"],
  );
});

test("people see the beginning of a digest", () => {
  assert.is(
    describeSource(`me/api:1.4@sha256:${"0123456789abcdef".repeat(4)}`),
    "me/api:1.4 @ sha256:0123456789ab",
  );
  assert.is(describeSource("me/api:1.4"), "me/api:1.4");
});
test.run();
