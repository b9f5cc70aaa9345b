import { test } from "uvu";
import type { Verb } from "../../bench/testbed/run.ts";
import { type Kill, killBoth, type Step } from "../kill-matrix.ts";

/** These steps change nothing, so a run killed in one leaves what a run killed before it leaves. */
const INSPECTS =
  /^(read the color record|find the|inspect |check (the (vault|disk|memory|port|idle)|Docker|Compose))/;

/**
 * After SIGKILL in one of these steps there is more to repair than after one in the step before. The verb is that of the
 * repair. A rollback costs less, but either must be able to continue.
 */
const REPAIRED_BY: Record<Verb, Record<string, Verb>> = {
  deploy: {
    build: "rollback",
    start: "deploy",
    send: "rollback", // the canary begins
    switch: "rollback",
    verify: "rollback", // as a canary, and with all traffic on the new build
    mark: "deploy",
    stop: "rollback",
  },
  rollback: { start: "rollback", switch: "deploy", verify: "rollback", mark: "deploy" },
};

/** The other steps get a signal that ends the run cleanly; those after the mark have already got one. */
function kills({ verb, index, name, stands }: Step): readonly Kill[] {
  if (index > 0 && INSPECTS.test(name)) return [];
  const repairedBy = REPAIRED_BY[verb][name.split(" ")[0] ?? ""];
  if (repairedBy) return [{ repairedBy }];
  return stands ? [] : [index % 4 < 2 ? "SIGTERM" : "SIGINT"];
}

// The full matrix, with twice the load, is a soak test.
test("a run that a signal ends in a step that changes something loses no request, and the next run repairs the rest", () =>
  killBoth(kills, 100));
test.run();
