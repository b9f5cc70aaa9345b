import { test } from "uvu";
import { KILLS, type Kill, killBoth } from "../kill-matrix.ts";

/** These steps change nothing, so a run killed in one leaves what a run killed before it leaves. */
const INSPECTS =
  /^(read the color record|find the|inspect |check (the (vault|disk|memory|port|idle)|Docker|Compose))/;

/** The steps that matter most get SIGKILL, which nothing can undo. The full matrix is a soak test. */
function kills(step: number, name: string): readonly Kill[] {
  if (step > 0 && INSPECTS.test(name)) return [];
  if (/^(build|start|recreate|send|switch|verify|mark)/.test(name)) return ["SIGKILL"];
  return [KILLS[step % 3] ?? "SIGKILL"]; // neighboring steps get different signals
}

test("a run killed in any step that changes something loses no request, and the next run repairs the rest", () =>
  killBoth(kills));
test.run();
