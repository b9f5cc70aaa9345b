import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import * as assert from "uvu/assert";
import {
  connectClient,
  describeError,
  GENERATIONS,
  type Generation,
  type McpClient,
  type Progress,
} from "../../bench/testbed/mcp-client.ts";
import type { Verb } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { COLORS, type Color, isColor } from "../../lib/color.ts";
import { suite } from "../suite.ts";

/** The number of clients of each generation. */
const CLIENTS = 2;
/** The maximum number of concurrent calls per client, by kind. `newcomer` connects a new client for each call. */
const CALLERS = { quick: 2, slow: 1, stream: 1, newcomer: 1 } as const;
type Kind = keyof typeof CALLERS;
const KINDS = Object.keys(CALLERS) as Kind[];

/** Long enough for the health checks to be answered in time, short enough for open calls at all times. */
const THINK_MS = { quick: 150, slow: 0, stream: 0, newcomer: 800 } as const;
const SLOW_SECONDS = 2;
const STREAM = { n: 12, interval: 0.15 };
const REVISION = { "1.x": "2025-11-25", "2.x": "2025-11-25", stateless: "2026-07-28" } as const;

/** The results of all calls: how many each color answered, as "stream of 1.x: blue", and the failures. */
interface Tally {
  answered: Record<string, number>;
  failures: string[];
}

const entry = (kind: Kind, generation: Generation, color: Color): string =>
  `${kind} of ${generation}: ${color}`;

/** Calls a tool and returns the color that responded. Throws unless the rest of the text is as expected. */
async function callTool(
  client: McpClient,
  name: string,
  args: Record<string, unknown>,
  expected: string,
  onProgress?: (progress: Progress) => void,
): Promise<Color> {
  const text = await client.callTool(name, args, onProgress);
  const color = text.split(" ")[0];
  if (!isColor(color) || text !== `${color} ${expected}`) {
    throw new Error(`wrong content: ${JSON.stringify(text)}, not a color and ${JSON.stringify(expected)}`);
  }
  return color;
}

async function echo(client: McpClient): Promise<Color> {
  const nonce = Math.random().toString(36);
  return callTool(client, "echo", { text: nonce }, nonce);
}

async function count(client: McpClient): Promise<Color> {
  const { n } = STREAM;
  const received: Progress[] = [];
  const color = await callTool(client, "count", STREAM, `${(n * (n + 1)) / 2}`, (progress) =>
    received.push(progress),
  );
  const all = Array.from({ length: n }, (_, i) => ({ progress: i + 1, total: n }));
  assert.equal(received, all, "progress notifications are missing or out of order");
  return color;
}

/** Connects a client and calls a tool with it. The first requests may reach one color and the rest the other. */
async function useNewClient(url: string, generation: Generation): Promise<Color> {
  const errors: Error[] = [];
  const client = await connectClient(url, { generation, onError: (error) => errors.push(error) });
  try {
    assert.is(client.server, "loop-api");
    assert.is(client.revision, REVISION[generation]);
    assert.equal(await client.listTools(), ["echo", "slow", "count"]);
    const color = await echo(client);
    assert.equal(errors.map(describeError), []);
    return color;
  } finally {
    await client.close();
  }
}

/** Starts clients that send calls until `stop` is called. `stop` waits for the open calls. */
async function startClients(url: string): Promise<{ stop(): Promise<Tally> }> {
  const tally: Tally = { answered: {}, failures: [] };
  let over = false;
  const call = (client: McpClient, generation: Generation, kind: Kind): Promise<Color> => {
    switch (kind) {
      case "quick":
        return echo(client);
      case "slow":
        return callTool(client, "slow", { seconds: SLOW_SECONDS }, `waited ${SLOW_SECONDS} s`);
      case "stream":
        return count(client);
      case "newcomer":
        return useNewClient(url, generation);
    }
  };
  const caller = async (client: McpClient, generation: Generation, kind: Kind): Promise<void> => {
    while (!over) {
      try {
        const key = entry(kind, generation, await call(client, generation, kind));
        tally.answered[key] = (tally.answered[key] ?? 0) + 1;
      } catch (error) {
        tally.failures.push(`${kind} of ${generation}: ${describeError(error)}`);
        await sleep(100); // do not spin during an outage
      }
      await sleep(Math.random() * 2 * THINK_MS[kind]);
    }
  };
  const clients = await Promise.all(
    GENERATIONS.flatMap((generation) =>
      Array.from({ length: CLIENTS }, async () => {
        const onError = (error: Error) => tally.failures.push(`${generation}: ${describeError(error)}`);
        return { generation, client: await connectClient(url, { generation, onError }) };
      }),
    ),
  );
  const calling = clients.flatMap(({ client, generation }) =>
    KINDS.flatMap((kind) => Array.from({ length: CALLERS[kind] }, () => caller(client, generation, kind))),
  );
  return {
    stop: async () => {
      over = true;
      await Promise.all(calling);
      await Promise.all(clients.map(({ client }) => client.close()));
      return tally;
    },
  };
}

const mcp = suite<{ stack: Scratch; url: string }>("real MCP clients");
mcp.before(async (context) => {
  context.stack = await createReleasedScratch("mcp", { VERIFY_SECONDS: "0", DRAIN_SECONDS: "20" });
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
mcp.after(({ stack }) => stack.remove());

const RELEASES: readonly Verb[] = ["deploy", "rollback"];

mcp("no call of any generation fails during a deploy and a rollback", async ({ stack, url }) => {
  const clients = await startClients(url);
  let tally: Tally;
  try {
    for (const verb of RELEASES) {
      const run = await (verb === "deploy"
        ? stack.deploy([], await stack.apiVersion("2.0.0"))
        : stack.rollback());
      assert.is(run.exitCode, 0, run.stdall);
      assert.is((await stack.get()).color, verb === "deploy" ? "green" : "blue");
    }
  } finally {
    tally = await clients.stop(); // otherwise they would keep the test process alive
  }
  const { answered, failures } = tally;
  assert.equal(failures, []);
  for (const generation of GENERATIONS) {
    for (const kind of KINDS) {
      for (const color of COLORS) {
        const key = entry(kind, generation, color);
        assert.ok((answered[key] ?? 0) > 0, `none: ${key}`);
      }
    }
  }
});

mcp("the example API rejects what revision 2026-07-28 forbids", async ({ url }) => {
  const meta = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const post = async (headers: Record<string, string>, method: string, params: object): Promise<string> => {
    const { statusCode, body } = await request(`${url}/mcp`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
    const message = (await body.json()) as { error?: { code: number } };
    return `${statusCode} ${message.error?.code ?? "result"}`;
  };
  const version = { "mcp-protocol-version": "2026-07-28" };
  const headers = { ...version, "mcp-method": "tools/call", "mcp-name": "echo" };
  const params = { name: "echo", arguments: { text: "x" }, _meta: meta };
  assert.is(await post(headers, "tools/call", params), "200 result");
  assert.is(
    await post({ ...headers, "mcp-name": "=?base64?ZWNobw==?=" }, "tools/call", params),
    "200 result",
  );
  assert.is(await post({ ...headers, "mcp-name": "slow" }, "tools/call", params), "400 -32020");
  assert.is(await post({ ...version, "mcp-name": "echo" }, "tools/call", params), "400 -32020");
  assert.is(await post({}, "tools/call", params), "400 -32020");
  assert.is(await post(headers, "tools/call", { ...params, _meta: {} }), "400 -32602");
  assert.is(await post({ "mcp-protocol-version": "2099-01-01" }, "tools/call", params), "400 -32022");
  assert.is(await post({ ...version, "mcp-method": "ping" }, "ping", { _meta: meta }), "404 -32601");
  assert.is(await post({}, "ping", {}), "200 result");
});

mcp.run();
