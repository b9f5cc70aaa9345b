import { spawn } from "node:child_process";
import { dirname, extname, join } from "node:path";
import { ROOT } from "../settings.ts";

/**
 * Starts the script NAME, which is beside the running one, in the same way: as a process of its own, which outlives this one and
 * the terminal. It inherits the environment, but neither the terminal nor the lock.
 */
export function startInBackground(name: string): void {
  const [, running = ""] = process.argv;
  const script = join(dirname(running), `${name}${extname(running)}`);
  const child = spawn(process.execPath, [...process.execArgv, script, "--quiet"], {
    cwd: ROOT,
    detached: true,
    stdio: "ignore",
  });
  child.on("error", () => undefined); // the next run ends the sessions
  child.unref();
}
