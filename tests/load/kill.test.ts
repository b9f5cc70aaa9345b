import { test } from "uvu";
import { KILLS, type Kill, killBoth } from "../kill-matrix.ts";

/** These steps change nothing, so a run killed in one leaves what a run killed before it leaves. */
const INSPECTS =
  /^(read the color record|find the|inspect |check (the (vault|disk|memory|port)|Docker|Compose))/;

test("a run killed in any step that changes something loses no request, and the next run repairs the rest", () =>
  // The steps that matter most also get SIGKILL, which nothing can undo. The full matrix is a soak test.
  killBoth((step, name) => {
    if (step > 0 && INSPECTS.test(name)) return [];
    const kill = KILLS[step % 3] ?? "SIGKILL"; // neighboring steps get different signals
    return /^(build|start|recreate|switch|verify|mark)/.test(name)
      ? [...new Set<Kill>(["SIGKILL", kill])]
      : [kill];
  }));
test.run();
