import { test } from "uvu";
import { KILLS, killBoth } from "../kill-matrix.ts";

test("a run that is killed in any step loses no request, and the next run repairs everything (one signal per step)", () =>
  // Consecutive steps get different signals. The full matrix is a soak test.
  killBoth((step) => KILLS.slice(step % 3, (step % 3) + 1)));
test.run();
