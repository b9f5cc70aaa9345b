import { test } from "uvu";
import { KILLS, killBoth } from "../kill-matrix.ts";

test("a run that is killed in any step loses no request, and the next run repairs everything (every signal in every step)", () =>
  killBoth(() => KILLS));
test.run();
