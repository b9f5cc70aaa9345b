import type { Container } from "../docker/container.ts";
import { followResponses } from "../nginx/access-log.ts";
import type { Context } from "../run/context.ts";
import type { newRates } from "./rates.ts";

/** Follows nginx's log with one process at a time, and counts its responses. */
export function followLogOf(context: Context, rates: ReturnType<typeof newRates>) {
  let following: { start: string; end: () => void } | undefined;
  const stop = (): void => {
    if (!following) return;
    const { end } = following;
    following = undefined;
    rates.end(Date.now());
    end();
  };
  process.once("exit", stop); // after an unexpected error, docker logs would stay until nginx's next line
  return {
    follows: () => following !== undefined,
    stop: () => {
      process.off("exit", stop);
      stop();
    },
    /** Starts again when the process has ended, or nginx was started or recreated since. */
    follow: ({ status, id, startedMs }: Container): void => {
      const start = `${id} ${startedMs}`;
      if (following && (status !== "running" || following.start !== start)) stop();
      if (following || status !== "running") return;
      const one = {
        start,
        end: followResponses(
          context,
          (logged) => rates.add(logged, Date.now()),
          () => {
            if (following === one) stop();
          },
        ),
      };
      following = one;
      rates.begin(Date.now());
    },
  };
}
