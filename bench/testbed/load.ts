import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, type Dispatcher } from "undici";

/** What a client does again and again; `patient` is a `post` that thinks for seconds, idle across whole switches. */
export type Kind = "post" | "get" | "patient" | "slow" | "stream";

/** One request of a client, sent once: nothing is retried. */
export interface Shot {
  kind: Kind;
  /** When it was sent and how long it took until its last byte, in ms; `at` counts from the start of the load. */
  at: number;
  ms: number;
  /** The color that answered, as nginx and the API both said; undefined for a failure. */
  color?: string;
  /** Why it is a loss: an error's code, a status, or an answer with other content than was asked for. */
  failure?: string;
}

export interface Mix {
  /** How many keep-alive clients of each kind, each with one connection of its own. */
  clients: Readonly<Partial<Record<Kind, number>>>;
  /** The mean think time of `post` and `get` clients, in ms; it is distributed as between people's calls. */
  thinkMs: number;
  /** `patient` clients think between these, in ms; below the keep-alive timeout that nginx advertises. */
  patientMs: readonly [number, number];
  /** How many events a stream has, and the seconds between two; three seconds in all unless said otherwise. */
  stream?: { n: number; interval: number };
}

export interface Load {
  /** What was sent until now and has ended. */
  shots: readonly Shot[];
  /** Milliseconds since the start. */
  now(): number;
  /** Lets every open request end, then tells all. */
  stop(): Promise<readonly Shot[]>;
}

const SLOW_SECONDS = 3;
const STREAM = { n: 20, interval: 0.15 };
/** A client of quick calls gives up after this; then it is a loss of the kind "hang". */
const PATIENCE_MS = 10_000;

class WrongAnswer extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

async function fetchText(agent: Agent, options: Dispatcher.RequestOptions): Promise<[string, string]> {
  const { statusCode, headers, body } = await agent.request(options);
  const text = await body.text();
  if (statusCode !== 200) throw new WrongAnswer(`HTTP ${statusCode}`);
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

/** The text of a tool's result; each one starts with the color of the API that made it. */
const resultOf = (message: string): string => JSON.parse(message).result.content[0].text;

/** Sends one request of a kind and gives the color that answered it, when every byte is as it must be. */
async function shoot(agent: Agent, origin: string, kind: Kind, stream = STREAM): Promise<string> {
  const expect = (actual: string, expected: string, color: string): string => {
    if (actual !== expected) throw new WrongAnswer("wrong content");
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

/** Starts clients against nginx at `origin`, on this machine only; they go on until they are stopped. */
export function startLoad(origin: string, { clients, thinkMs, patientMs, stream }: Mix): Load {
  const started = performance.now();
  const now = (): number => performance.now() - started;
  const shots: Shot[] = [];
  const end = new AbortController();
  setMaxListeners(0, end.signal); // each client that thinks listens

  const think = (kind: Kind): number => {
    if (kind === "slow" || kind === "stream") return 0;
    if (kind === "patient") return patientMs[0] + Math.random() * (patientMs[1] - patientMs[0]);
    return -Math.log(1 - Math.random()) * thinkMs;
  };
  const client = async (kind: Kind): Promise<void> => {
    const agent = new Agent({ connections: 1, headersTimeout: PATIENCE_MS });
    while (!end.signal.aborted) {
      const at = now();
      try {
        const color = await shoot(agent, origin, kind, stream);
        shots.push({ kind, at, ms: now() - at, color });
      } catch (error) {
        shots.push({ kind, at, ms: now() - at, failure: codeOf(error) });
        if (kind === "slow" || kind === "stream") await sleep(100); // an outage is no reason to spin
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
