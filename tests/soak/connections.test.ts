import { test } from "uvu";
import { expectNoPostLost } from "../idle-bursts.ts";

test("of 50,000 POSTs none is lost if pauses are about as long as the API's idle timeout", () =>
  expectNoPostLost(50_000));
test.run();
