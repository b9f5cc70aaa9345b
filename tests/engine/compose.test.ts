import { join } from "node:path";
import { $ } from "zx";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { checkColorEngine } from "../color-engine.ts";
import { suite } from "../suite.ts";

const engine = suite<{ stack: Scratch }>("Compose as the engine of the colors");
engine.before(async (context) => {
  context.stack = await createReleasedScratch("compose", {});
});
engine.after(({ stack }) => stack.remove());

engine("a color is started, stopped, started again, discarded and recreated", async ({ stack }) => {
  const second = `${stack.project}-api:second`;
  const labels = $({ quiet: true, input: `FROM ${stack.project}-api:blue\nLABEL second=1\n` });
  await labels`docker build --quiet --tag ${second} --file - ${join(stack.folder, "vault")}`;
  await checkColorEngine(stack, [`${stack.project}-api:blue`, second]);
});

engine.run();
