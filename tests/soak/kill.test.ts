import { test } from "uvu";
import { KILLS, killBoth } from "../kill-matrix.ts";

test("killed in every step with every signal: no request is lost, and the next run repairs the rest", () =>
  killBoth(() => KILLS));
test.run();
