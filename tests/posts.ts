import { type Load, startLoad } from "../bench/testbed/load.ts";
import { createReleasedScratch, type Scratch } from "../bench/testbed/scratch.ts";

/** A stack, and the loads of the current test. */
export interface Bed {
  stack: Scratch;
  loads: Load[];
}

/** Creates a bed for releases under load. */
export const createBed = async (name: string, env: Record<string, string> = {}): Promise<Bed> => ({
  stack: await createReleasedScratch(name, { DRAIN_SECONDS: "20", ...env }),
  loads: [],
});

/** Starts ten clients that POST to `/mcp`, each after a pause of `thinkMs`: about 200 times a second in all. */
export function startPosts({ stack, loads }: Bed, thinkMs = 50): Load {
  const url = `http://127.0.0.1:${stack.env.NGINX_PORT}`;
  const load = startLoad(url, { clients: { post: 10 }, thinkMs, patientMs: [0, 0] });
  loads.push(load);
  return load;
}

/** Stops the loads of a test. After a failed one, they would run forever. */
export async function stopLoads({ loads }: Bed): Promise<void> {
  for (const load of loads.splice(0)) await load.stop();
}
