import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { handOver } from "./atomic.ts";

/** With the one before, the log takes twice this at most, and whatever the last run of each wrote beyond it. */
const BOUND_BYTES = 1024 * 1024;

/**
 * Opens the log file of all runs; gives what appends a line to it. One that has grown too large is moved aside first,
 * over the one before. A log that cannot be written never fails a run: the first reason goes to `warn`.
 */
export function openLogFile(path: string, warn: (message: string) => void): (line: string) => void {
  let lost = false;
  const attempt = (act: () => void): void => {
    if (lost) return;
    try {
      act();
    } catch (error) {
      lost = true;
      warn(`cannot write the log file ${path}: ${error}`);
    }
  };
  attempt(() => {
    if (!existsSync(dirname(path))) mkdirSync(dirname(path), { mode: 0o755 });
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > BOUND_BYTES) renameSync(path, `${path}.1`);
    const file = openSync(path, "a", 0o644);
    handOver(file, path);
    closeSync(file);
  });
  return (line) => attempt(() => appendFileSync(path, `${line}\n`, { mode: 0o644 }));
}
