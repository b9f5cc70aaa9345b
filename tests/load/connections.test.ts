import { expectNoPostLost } from "../idle-bursts.ts";
import { suite } from "../suite.ts";

const connections = suite("connections to the API");

connections(
  "no POST is lost if pauses are about as long as the API's idle timeout",
  () => expectNoPostLost(8000), // 50,000 in tests/soak/connections.test.ts
);

connections.run();
