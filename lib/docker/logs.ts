import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Context } from "../run/context.ts";

/** How many lines before now are read, so that none is missed while `docker logs` starts. */
const LINES_BEFORE = 5000;

/**
 * Passes on each line that a container writes to its standard output from now on; returns what ends that. The command does
 * not hold the lock: after a killed run it ends at the next line, which nobody reads. `onEnd`: the command has ended, as it
 * does when the container or the engine stops, or it could not be started.
 */
export function followLog(
  { settings }: Context,
  name: string,
  onLine: (line: string) => void,
  onEnd: () => void = () => undefined,
): () => void {
  const since = (Date.now() / 1000).toFixed(3);
  const args = ["logs", "--follow", "--since", since, "--tail", String(LINES_BEFORE), name];
  const command = spawn(settings.dockerCmd, args, {
    env: settings.environment,
    stdio: ["ignore", "pipe", "ignore"],
  });
  command.on("error", () => undefined); // without lines, nothing is judged
  command.once("close", onEnd);
  createInterface({ input: command.stdout }).on("line", onLine);
  return () => void command.kill("SIGKILL");
}
