import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Progress } from "@modelcontextprotocol/sdk/types.js";
import { Agent } from "undici";
import * as assert from "uvu/assert";
import { z } from "zod";
import type { Verb } from "../../bench/testbed/run.ts";
import { createReleasedScratch, type Scratch } from "../../bench/testbed/scratch.ts";
import { COLORS, type Color, isColor } from "../../lib/color.ts";
import { suite } from "../suite.ts";

const SESSIONS = 4;
/** The maximum number of concurrent calls per session, by kind. `newcomer` opens a new session for each call. */
const CALLERS = { quick: 6, slow: 1, stream: 1, newcomer: 1 } as const;
type Kind = keyof typeof CALLERS;
const KINDS = Object.keys(CALLERS) as Kind[];

const THINK_MS = { quick: 80, slow: 0, stream: 0, newcomer: 400 } as const;
const IDLE_MS = 3000;
const SLOW_SECONDS = 2;
const STREAM = { n: 12, interval: 0.15 };

/** The results of all calls: how many each color answered, and the failures. */
interface Tally {
  answered: Record<Kind, Record<Color, number>>;
  failures: string[];
}

const newTally = (): Tally => {
  const none = (): Record<Color, number> => ({ blue: 0, green: 0 });
  return { answered: { quick: none(), slow: none(), stream: none(), newcomer: none() }, failures: [] };
};

const describe = (error: unknown): string =>
  error instanceof Error && error.cause ? `${error}: ${error.cause}` : String(error);

/** Opens a session: initialize, notifications/initialized, and the GET that a stateless server rejects. */
async function connect(url: string, onError: (error: Error) => void): Promise<Client> {
  const client = new Client({ name: "release-test", version: "1.0.0" });
  // Errors outside of calls, such as a response that is not JSON-RPC, are only reported here.
  client.onerror = onError;
  // Each session has its own connections, as on its own machine. It closes idle ones sooner than by default; otherwise
  // each release would wait nine seconds for the last of them.
  // (Node's fetch accepts this agent, but its types are from another version of undici.)
  const agent = new Agent({ keepAliveMaxTimeout: IDLE_MS });
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/mcp`), {
    fetch: (to, init) => fetch(to, { ...init, dispatcher: agent } as unknown as RequestInit),
  });
  // With exactOptionalPropertyTypes, the SDK's class does not match its own interface because of `sessionId`.
  await client.connect(transport as Parameters<Client["connect"]>[0]);
  return client;
}

const ToolResult = z.object({
  isError: z.literal(false),
  content: z.tuple([z.object({ type: z.literal("text"), text: z.string() })]),
});

/** Calls a tool and returns the color that responded. Throws unless the rest of the text is as expected. */
async function callTool(
  client: Client,
  call: { name: string; arguments: Record<string, unknown> },
  expected: string,
  onprogress?: (progress: Progress) => void,
): Promise<Color> {
  const result = ToolResult.parse(await client.callTool(call, undefined, onprogress ? { onprogress } : {}));
  const { text } = result.content[0];
  const color = text.split(" ")[0];
  if (!isColor(color) || text !== `${color} ${expected}`) {
    throw new Error(`wrong content: ${JSON.stringify(text)}, not a color and ${JSON.stringify(expected)}`);
  }
  return color;
}

async function echo(client: Client): Promise<Color> {
  const nonce = Math.random().toString(36);
  return callTool(client, { name: "echo", arguments: { text: nonce } }, nonce);
}

async function count(client: Client): Promise<Color> {
  const { n } = STREAM;
  const received: Progress[] = [];
  const color = await callTool(
    client,
    { name: "count", arguments: STREAM },
    `${(n * (n + 1)) / 2}`,
    (progress) => received.push(progress),
  );
  const all = Array.from({ length: n }, (_, i) => ({ progress: i + 1, total: n }));
  assert.equal(received, all, "progress notifications are missing or out of order");
  return color;
}

/** Opens a session and calls a tool in it. The first requests may reach one color and the rest the other. */
async function useNewSession(url: string): Promise<Color> {
  const errors: Error[] = [];
  const client = await connect(url, (error) => errors.push(error));
  try {
    assert.is(client.getServerVersion()?.name, "loop-api");
    const { tools } = await client.listTools();
    assert.equal(
      tools.map(({ name }) => name),
      ["echo", "slow", "count"],
    );
    const color = await echo(client);
    assert.equal(errors.map(describe), []);
    return color;
  } finally {
    client.onerror = () => {}; // closing aborts a pending GET
    await client.close();
  }
}

/** Starts sessions that send calls until `stop` is called. `stop` waits for the open calls. */
async function startSessions(url: string): Promise<{ stop(): Promise<Tally> }> {
  const tally = newTally();
  let over = false;
  const call = (client: Client, kind: Kind): Promise<Color> => {
    switch (kind) {
      case "quick":
        return echo(client);
      case "slow":
        return callTool(
          client,
          { name: "slow", arguments: { seconds: SLOW_SECONDS } },
          `waited ${SLOW_SECONDS} s`,
        );
      case "stream":
        return count(client);
      case "newcomer":
        return useNewSession(url);
    }
  };
  const caller = async (client: Client, kind: Kind): Promise<void> => {
    while (!over) {
      try {
        tally.answered[kind][await call(client, kind)]++;
      } catch (error) {
        tally.failures.push(`${kind}: ${describe(error)}`);
        await sleep(100); // do not spin during an outage
      }
      await sleep(Math.random() * 2 * THINK_MS[kind]);
    }
  };
  const clients = await Promise.all(
    Array.from({ length: SESSIONS }, () =>
      connect(url, (error) => tally.failures.push(`session: ${describe(error)}`)),
    ),
  );
  const calling = clients.flatMap((client) =>
    KINDS.flatMap((kind) => Array.from({ length: CALLERS[kind] }, () => caller(client, kind))),
  );
  return {
    stop: async () => {
      over = true;
      await Promise.all(calling);
      await Promise.all(clients.map((client) => client.close()));
      return tally;
    },
  };
}

const mcp = suite<{ stack: Scratch; url: string }>("a real MCP client");
mcp.before(async (context) => {
  context.stack = await createReleasedScratch("mcp", { VERIFY_SECONDS: "0", DRAIN_SECONDS: "20" });
  context.url = `http://127.0.0.1:${context.stack.env.NGINX_PORT}`;
});
mcp.after(({ stack }) => stack.remove());

const RELEASES: readonly Verb[] = [
  "deploy",
  "rollback",
  "rollback",
  "deploy",
  "deploy",
  "rollback",
  "deploy",
  "rollback",
  "deploy",
  "rollback",
];

mcp("no call of its sessions fails during ten deploys and rollbacks", async ({ stack, url }) => {
  const sessions = await startSessions(url);
  let problem = "";
  for (const [i, verb] of RELEASES.entries()) {
    const run = await (verb === "deploy"
      ? stack.deploy([], await stack.apiVersion(`2.0.${i}`))
      : stack.rollback());
    const served = (await stack.get()).color;
    // Stop the sessions before any assertion: they would keep the test process alive.
    if (run.exitCode !== 0) problem = run.stdall;
    else if (served !== (i % 2 ? "blue" : "green")) problem = `${served} serves after release ${i + 1}`;
    if (problem) break;
  }
  const { answered, failures } = await sessions.stop();
  assert.is(problem, "");
  assert.equal(failures, []);
  for (const kind of KINDS) {
    for (const color of COLORS)
      assert.ok(answered[kind][color] > 0, `no ${kind} call was answered by ${color}`);
  }
});
mcp.run();
