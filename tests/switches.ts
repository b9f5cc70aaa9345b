import * as assert from "uvu/assert";
import { type Mix, type Shot, startLoad } from "../bench/testbed/load.ts";
import { type Scratch, waitFor } from "../bench/testbed/scratch.ts";

export const LOAD: Mix = {
  clients: { post: 25, get: 25, patient: 10, slow: 5, stream: 5 },
  thinkMs: 50,
  patientMs: [500, 2500],
};

/** The failures and their counts. */
export function losses(shots: readonly Shot[]): Record<string, number> {
  const lost: Record<string, number> = {};
  for (const { kind, failure } of shots) {
    if (failure) lost[`${kind}: ${failure}`] = (lost[`${kind}: ${failure}`] ?? 0) + 1;
  }
  return lost;
}

/**
 * Rolls back and forth under load, `count` times (an even number). Once, the idle color gets a new address after nginx has
 * learned its old one. No request may fail. Blue must serve at the start.
 */
export async function switchUnderLoad(stack: Scratch, count: number): Promise<void> {
  const load = startLoad(`http://127.0.0.1:${stack.env.NGINX_PORT}`, LOAD);
  const idle = `${stack.project}-api-green`;
  const address = () => stack.field(idle, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
  for (let i = 0; i < count; i++) {
    if (i === 2 * Math.floor(count / 4)) {
      // Blue serves. Green is recreated while another container has its old address.
      await stack.docker("start", idle);
      await waitFor(
        "nginx knows its address",
        async () => (await stack.get("/_loop/green/health")).status === 200,
        30,
      );
      const before = await address();
      await stack.docker("rm", "--force", idle);
      const network = `${stack.project}_default`;
      await stack.docker(
        "run",
        "-d",
        "--rm",
        "--name",
        `${stack.project}-other`,
        "--network",
        network,
        "nginx:1.30",
        "sleep",
        "300",
      );
      const run = await stack.rollback();
      assert.is(run.exitCode, 0, run.stdall);
      assert.is.not(await address(), before, "the test did not manage to change the address");
      continue;
    }
    const run = await stack.rollback();
    assert.is(run.exitCode, 0, run.stdall);
  }
  const shots = await load.stop();
  await stack.docker("rm", "--force", `${stack.project}-other`);
  assert.equal(losses(shots), {});
  for (const kind of ["post", "get", "patient", "slow", "stream"]) {
    for (const color of ["blue", "green"]) {
      assert.ok(
        shots.some((shot) => shot.kind === kind && shot.color === color),
        `no ${kind} request was answered by ${color}`,
      );
    }
  }
}
