import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, type Dispatcher } from "undici";

/** The request that a client repeats. `patient` is a `post` with seconds of think time, so its connection idles across whole switches. */
export type Kind = "post" | "get" | "patient" | "slow" | "stream";

/** One request of a client. Requests are never retried. */
export interface Shot {
  kind: Kind;
  /** When it was sent, in ms since the start of the load, and the ms until its last byte. */
  at: number;
  ms: number;
  /** The color that responded, reported by both nginx and the API; undefined for a failure. */
  color?: string;
  /** Why it counts as lost: an error code, a status, or a response with the wrong content. */
  failure?: string;
}

export interface Mix {
  /** The number of keep-alive clients of each kind. Each has its own connection. */
  clients: Readonly<Partial<Record<Kind, number>>>;
  /** The mean think time of `post` and `get` clients in ms, exponentially distributed. */
  thinkMs: number;
  /** The range of the think time of `patient` clients, in ms; below the keep-alive timeout that nginx advertises. */
  patientMs: readonly [number, number];
  /** The number of events in a stream and the seconds between them. By default a stream takes three seconds. */
  stream?: { n: number; interval: number };
}

export interface Load {
  /** The requests that have ended so far. */
  shots: readonly Shot[];
  /** Milliseconds since the start. */
  now(): number;
  /** Waits until every open request has ended, then returns all of them. */
  stop(): Promise<readonly Shot[]>;
}

const SLOW_SECONDS = 3;
const STREAM = { n: 20, interval: 0.15 };
/** The response timeout. A request without a response by then is lost with the failure "hang". */
const RESPONSE_TIMEOUT_MS = 10_000;

class WrongResponse extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

async function fetchText(agent: Agent, options: Dispatcher.RequestOptions): Promise<[string, string]> {
  const { statusCode, headers, body } = await agent.request(options);
  const text = await body.text();
  if (statusCode !== 200) throw new WrongResponse(`HTTP ${statusCode}`);
  return [text, String(headers["x-loop-color"])];
}

async function call(agent: Agent, origin: string, name: string, args: object): Promise<[string, string]> {
  return fetchText(agent, {
    origin,
    path: "/mcp",
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }),
  });
}

/** The text of a tool's result. It starts with the color of the API that produced it. */
const resultOf = (message: string): string => JSON.parse(message).result.content[0].text;

/** Sends one request and returns the color that responded. Throws unless every byte of the response is correct. */
async function sendRequest(agent: Agent, origin: string, kind: Kind, stream = STREAM): Promise<string> {
  const expect = (actual: string, expected: string, color: string): string => {
    if (actual !== expected) throw new WrongResponse("wrong content");
    return color;
  };
  switch (kind) {
    case "get": {
      const [text, color] = await fetchText(agent, { origin, path: "/health", method: "GET" });
      return expect(JSON.parse(text).color, color, color);
    }
    case "post":
    case "patient": {
      const nonce = Math.random().toString(36);
      const [text, color] = await call(agent, origin, "echo", { text: nonce });
      return expect(resultOf(text), `${color} ${nonce}`, color);
    }
    case "slow": {
      const [text, color] = await call(agent, origin, "slow", { seconds: SLOW_SECONDS });
      return expect(resultOf(text), `${color} waited ${SLOW_SECONDS} s`, color);
    }
    case "stream": {
      const { n } = stream;
      const [text, color] = await call(agent, origin, "count", stream);
      const events = text.split("\n").filter((line) => line.startsWith("data: "));
      const counted = events.slice(0, -1).map((line) => JSON.parse(line.slice(6)).params.data);
      const all = Array.from({ length: n }, (_, i) => `${color} ${i + 1} of ${n}`);
      expect(counted.join(), all.join(), color);
      return expect(resultOf(events.at(-1)?.slice(6) ?? ""), `${color} ${(n * (n + 1)) / 2}`, color);
    }
  }
}

const codeOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as { code?: string };
  return code === "UND_ERR_HEADERS_TIMEOUT" ? "hang" : (code ?? error.name);
};

/** Starts clients that send requests to nginx at `origin`, on this machine, until `stop` is called. */
export function startLoad(origin: string, { clients, thinkMs, patientMs, stream }: Mix): Load {
  const started = performance.now();
  const now = (): number => performance.now() - started;
  const shots: Shot[] = [];
  const end = new AbortController();
  setMaxListeners(0, end.signal); // each client adds a listener while it thinks

  const think = (kind: Kind): number => {
    if (kind === "slow" || kind === "stream") return 0;
    if (kind === "patient") return patientMs[0] + Math.random() * (patientMs[1] - patientMs[0]);
    return -Math.log(1 - Math.random()) * thinkMs;
  };
  const client = async (kind: Kind): Promise<void> => {
    const agent = new Agent({ connections: 1, headersTimeout: RESPONSE_TIMEOUT_MS });
    while (!end.signal.aborted) {
      const at = now();
      try {
        const color = await sendRequest(agent, origin, kind, stream);
        shots.push({ kind, at, ms: now() - at, color });
      } catch (error) {
        shots.push({ kind, at, ms: now() - at, failure: codeOf(error) });
        if (kind === "slow" || kind === "stream") await sleep(100); // do not spin during an outage
      }
      await sleep(think(kind), undefined, { signal: end.signal }).catch(() => undefined);
    }
    await agent.close();
  };
  const running = Object.entries(clients).flatMap(([kind, count]) =>
    Array.from({ length: count }, () => client(kind as Kind)),
  );
  return {
    shots,
    now,
    stop: async () => {
      end.abort();
      await Promise.all(running);
      return shots;
    },
  };
}
