import { test } from "uvu";
import { createReleasedScratch } from "../../bench/testbed/scratch.ts";
import { switchUnderLoad } from "../switches.ts";

test("twenty switches lose no request, even if the idle color gets a new address", async () => {
  const stack = await createReleasedScratch("switches", {
    API_IDLE_SECONDS: "2",
    VERIFY_SECONDS: "0",
    DRAIN_SECONDS: "20",
  });
  try {
    await switchUnderLoad(stack, 20);
  } finally {
    await stack.remove();
  }
});
test.run();
