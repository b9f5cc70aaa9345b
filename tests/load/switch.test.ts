import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { suite } from "../suite.ts";
import { switchUnderLoad } from "../switches.ts";

const lossless = suite<{ stack: Scratch }>("switch under load");
lossless.before(async (context) => {
  context.stack = await createReleasedScratch("switch", {
    API_IDLE_SECONDS: "2",
    VERIFY_SECONDS: "0",
    DRAIN_SECONDS: "20",
  });
});
lossless.after(({ stack }) => stack.remove());

lossless(
  "two switches lose no request, even if the idle color gets a new address",
  ({ stack }) => switchUnderLoad(stack, 2), // twenty in tests/soak/switch.test.ts, which CI runs
);

lossless.run();
