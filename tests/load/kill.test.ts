import { test } from "uvu";
import { KILLS, killBoth } from "../kill-matrix.ts";

test("killed in every step, with one signal each: no request is lost, and the next run repairs the rest", () =>
  // Every third step gets each signal, and neighboring steps different ones. The full matrix is a soak test.
  killBoth((step) => KILLS.slice(step % 3, (step % 3) + 1)));
test.run();
