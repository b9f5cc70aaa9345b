import { test } from "uvu";
import { killBoth } from "../kill-matrix.ts";

test("a run that is killed in any step loses no request, and the next run repairs everything (every signal in every step)", () =>
  killBoth(() => ["SIGTERM", "SIGINT", { repairedBy: "deploy" }, { repairedBy: "rollback" }], 50));
test.run();
