import { spawn } from "node:child_process";
import { join } from "node:path";
import { ROOT } from "../settings.ts";

/**
 * Starts `scripts/NAME.mts` as a process of its own, which outlives this one and the terminal. It inherits the environment, but
 * neither the terminal nor the lock.
 */
export function startInBackground(name: string): void {
  const script = join(ROOT, "scripts", `${name}.mts`);
  const child = spawn(process.execPath, ["--import", import.meta.resolve("tsx"), script, "--quiet"], {
    cwd: ROOT,
    detached: true,
    stdio: "ignore",
  });
  child.on("error", () => undefined); // the next run ends the sessions
  child.unref();
}
