import { test } from "uvu";
import * as assert from "uvu/assert";
import { listPrevious } from "../../lib/mcp/previous.ts";
import { serveSessions, tool } from "../mcp-servers.ts";

const access = { seconds: 10 };

test("the tools of the serving color are listed; if that fails, a warning says so", async () => {
  const warnings: string[] = [];
  const warn = (message: string) => void warnings.push(message);
  const server = await serveSessions([tool("a"), tool("b")]);
  const listed = await listPrevious(new URL(server.url), access, warn);
  assert.equal(
    listed?.map(({ name }) => name),
    ["a", "b"],
  );
  assert.equal(warnings, []);
  server.close();
  assert.is(await listPrevious(new URL(server.url), access, warn), undefined);
  assert.is(warnings.length, 1);
  assert.match(
    warnings[0] ?? "",
    /^not compared with the serving color: The MCP server at .* failed while connecting/,
  );
});

test("without a serving color there is neither a list nor a warning", async () => {
  const warn = () => assert.unreachable();
  assert.is(await listPrevious(undefined, access, warn), undefined);
});
test.run();
