import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { handOver } from "../util/atomic.ts";

/** The log is rotated above this size, so two files of about this size are kept. */
const BOUND_BYTES = 1024 * 1024;

/**
 * Opens the log file of all runs and returns a function that appends a line. A log that is too large is rotated first.
 * A log that cannot be written never fails a run: the first error goes to `warn`.
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
