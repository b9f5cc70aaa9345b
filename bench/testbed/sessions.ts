import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { connectClient, describeError, type Generation, type McpClient } from "./mcp-client.ts";

export interface SessionOptions {
  /** The number of sessions. */
  count: number;
  /** The mean pause between two `count` calls of a session, in ms. */
  thinkMs: number;
  /** The mean pause between two `slow` calls of a session, in ms, and how long each takes. Default: 3 s and 1 s. */
  slowEveryMs?: number;
  slowSeconds?: number;
  /** Whether each session has a listening stream (`GET /mcp`), as official clients have. Default: true. */
  listen?: boolean;
  /** The client. Default: the 1.x one, whose servers keep sessions. */
  generation?: Exclude<Generation, "stateless">;
}

/** One session, so far. */
export interface SessionState {
  id: string;
  /** The colors that answered its calls. More than one: the session moved. */
  colors: readonly string[];
  calls: number;
  failed: number;
  /** Where its counter did not continue, such as "7 after 5". */
  gaps: readonly string[];
}

export interface SessionsReport {
  /** All calls that have ended, and those of them that failed. The DELETE at the end counts as a call. */
  calls: number;
  failed: number;
  /** The texts of the failures, and how many calls failed with each. */
  failures: Readonly<Record<string, number>>;
  /** What the clients reported outside of calls: lost listening streams, failed reconnections. */
  streamErrors: Readonly<Record<string, number>>;
  /** How many sessions have a failed call or a gap. Clients do not recover from an unknown session by themselves. */
  broken: number;
  /** How many sessions have a gap in their counter. */
  gaps: number;
  sessions: readonly SessionState[];
}

export interface Sessions {
  /** The results so far. */
  report(): SessionsReport;
  /** Waits for the open calls, ends each session with a DELETE, and returns the last report. */
  stop(): Promise<SessionsReport>;
}

/** Counts equal texts. */
const tally = (texts: readonly string[]): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const text of texts) counts[text] = (counts[text] ?? 0) + 1;
  return counts;
};

class Session {
  readonly failures: string[] = [];
  readonly gaps: string[] = [];
  readonly colors = new Set<string>();
  calls = 0;
  #last = 0;
  /** Clients report the error of a call twice: they reject the call, and call `onError`. */
  readonly #reported: unknown[] = [];
  readonly #rejected = new Set<unknown>();
  #client: McpClient | undefined;

  async connect(url: string, options: Pick<SessionOptions, "listen" | "generation">): Promise<void> {
    this.#client = await connectClient(url, { ...options, onError: (error) => this.#reported.push(error) });
    if (!this.#client.sessionId) throw new Error("the server assigned no session");
  }

  get id(): string {
    return this.#client?.sessionId ?? "";
  }

  get streamErrors(): string[] {
    return this.#reported.filter((error) => !this.#rejected.has(error)).map(describeError);
  }

  async #attempt(what: string, action: (client: McpClient) => Promise<void>): Promise<void> {
    if (!this.#client) throw new Error("not connected");
    try {
      await action(this.#client);
    } catch (error) {
      this.#rejected.add(error);
      this.failures.push(`${what}: ${describeError(error)}`);
    }
    this.calls++;
  }

  /** Calls a tool and returns the text after the color. */
  async #call(client: McpClient, name: string, args: Record<string, unknown> = {}): Promise<string> {
    const text = await client.callTool(name, args);
    const [color = ""] = text.split(" ");
    this.colors.add(color);
    return text.slice(color.length + 1);
  }

  count(): Promise<void> {
    return this.#attempt("count", async (client) => {
      const value = Number(await this.#call(client, "count"));
      if (value !== this.#last + 1) this.gaps.push(`${value} after ${this.#last}`);
      this.#last = value;
    });
  }

  slow(seconds: number): Promise<void> {
    return this.#attempt("slow", async (client) => {
      const text = await this.#call(client, "slow", { seconds });
      if (text !== `waited ${seconds} s`) throw new Error(`wrong content: ${JSON.stringify(text)}`);
    });
  }

  end(): Promise<void> {
    return this.#attempt("DELETE", (client) => client.close());
  }

  get state(): SessionState {
    const { id, calls, gaps, failures } = this;
    return { id, colors: [...this.colors], calls, failed: failures.length, gaps: [...gaps] };
  }
}

/**
 * Opens sessions at `${url}/mcp`, where the session API answers. Each calls `count` again and again, and now and then `slow` at the
 * same time, until `stop` is called. Throws if a session cannot be opened.
 */
export async function startSessions(url: string, options: SessionOptions): Promise<Sessions> {
  const { count, thinkMs, slowEveryMs = 3000, slowSeconds = 1 } = options;
  const over = new AbortController();
  setMaxListeners(0, over.signal); // each session adds two listeners while it pauses
  const pause = (meanMs: number): Promise<void> =>
    sleep(Math.random() * 2 * meanMs, undefined, { signal: over.signal }).catch(() => undefined);
  const sessions = Array.from({ length: count }, () => new Session());
  const connected = await Promise.allSettled(sessions.map((session) => session.connect(url, options)));
  const refused = connected.find((result) => result.status === "rejected");
  if (refused) {
    // The listening streams of the others would keep the process alive.
    await Promise.allSettled(sessions.map((session) => session.end()));
    throw refused.reason;
  }

  // A failed call does not end its session: it may be a single loss, and the next calls show which.
  const counting = sessions.map(async (session) => {
    while (!over.signal.aborted) {
      await session.count();
      await pause(thinkMs);
    }
  });
  const waiting = sessions.map(async (session) => {
    await pause(slowEveryMs);
    while (!over.signal.aborted) {
      await session.slow(slowSeconds);
      await pause(slowEveryMs);
    }
  });
  const report = (): SessionsReport => {
    const states = sessions.map(({ state }) => state);
    const sum = (of: (state: SessionState) => number): number =>
      states.reduce((n, state) => n + of(state), 0);
    return {
      calls: sum(({ calls }) => calls),
      failed: sum(({ failed }) => failed),
      failures: tally(sessions.flatMap(({ failures }) => failures)),
      streamErrors: tally(sessions.flatMap(({ streamErrors }) => streamErrors)),
      broken: states.filter(({ failed, gaps }) => failed > 0 || gaps.length > 0).length,
      gaps: states.filter(({ gaps }) => gaps.length > 0).length,
      sessions: states,
    };
  };
  return {
    report,
    stop: async () => {
      over.abort();
      await Promise.all([...counting, ...waiting]);
      await Promise.all(sessions.map((session) => session.end()));
      return report();
    },
  };
}
