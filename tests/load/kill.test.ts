import { test } from "uvu";
import { KILLS, killBoth } from "../kill-matrix.ts";

/** These steps change nothing, so a run killed in one leaves what a run killed before it leaves. */
const INSPECTS =
  /^(read the color record|find the|inspect |check (the (vault|disk|memory|port)|Docker|Compose))/;

test("a run killed in any step that changes something loses no request, and the next run repairs the rest", () =>
  // Neighboring steps get different signals. The full matrix is a soak test.
  killBoth((step, name) => (step > 0 && INSPECTS.test(name) ? [] : KILLS.slice(step % 3, (step % 3) + 1))));
test.run();
