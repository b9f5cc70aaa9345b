/** What the process exits with; the README has the table for owners. */
export const EXIT = { done: 0, failed: 1, usage: 2, manual: 3, locked: 4 } as const;

interface Report {
  /** What to do next, as a sentence an owner can act on at 03:00. */
  next: string;
  /** What was seen: log lines, an answer, a command's output. */
  details?: string;
}

/** A failure the tool foresaw. Everything else that is thrown is a bug. */
export class ToolError extends Error {
  readonly exitCode: number = EXIT.failed;
  readonly next: string;
  details: string;

  constructor(message: string, { next, details = "" }: Report) {
    super(message);
    this.name = new.target.name;
    this.next = next;
    this.details = details;
  }
}

/** A wrong option or setting. Nothing was touched. */
export class UsageError extends ToolError {
  override readonly exitCode = EXIT.usage;
}

/** The state file cannot be read or written, or says neither blue nor green. */
export class StateFileError extends ToolError {}

/** The vault is empty although releases used it before: most likely it is not mounted. Nothing was touched. */
export class EmptyVaultError extends ToolError {}

/** Docker or Compose is missing, does not answer or refused a command. */
export class DockerError extends ToolError {}

/** An outside command did not end in the time that it has, and was killed. */
export class DeadlineError extends DockerError {}

/** The compose file cannot be read. Nothing was touched. */
export class ComposeFileError extends UsageError {}

/** Docker's disk has less room than the last image took. Nothing was touched. */
export class DiskSpaceError extends ToolError {}

/** Another run works on the same stack. Nothing was touched. */
export class LockedError extends ToolError {
  override readonly exitCode = EXIT.locked;
}

/** The signals that ask a run to end, with what a shell says for each: 128 + its number. */
export const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** A signal asked the run to end. What it had not finished is taken back. */
export class InterruptedError extends ToolError {
  override readonly exitCode: number;

  constructor(signal: keyof typeof SIGNALS) {
    super(`Interrupted by ${signal}`, { next: "Run it again when you like." });
    this.exitCode = SIGNALS[signal];
  }
}

/** The image did not build. The color that serves was not touched. */
export class BuildError extends ToolError {}

/** The active link is something else than a link. Nothing was touched. */
export class LinkError extends ToolError {}

/** nginx did not take its configuration before anything was started. Nothing was touched. */
export class ConfigurationError extends ToolError {}

/** The host has less memory than a second color would take. Nothing was started. */
export class MemoryError extends ToolError {}

/** The host port of the color is somebody else's. Nothing was started. */
export class PortConflictError extends ToolError {}

/** Both colors run and nobody said which to keep. Nothing was stopped. */
export class BothRunningError extends ToolError {}

/** A rollback found no other color. */
export class NothingToRollBackToError extends ToolError {}

/** The new color did not become healthy, or nginx cannot reach it. No traffic was moved. */
export class HealthError extends ToolError {}

/** Traffic through nginx was not what it should be after the switch. */
export class VerifyError extends ToolError {}

/** What serves was not verified, and cannot be, and the marked color cannot take over. Nothing was marked, built or removed. */
export class UnverifiedError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** A color that is to stop was not stopped. The release itself stands. */
export class StopError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** The traffic was to go back, and was not seen to be back. */
export class NotBackError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** nginx did not take the new upstream. The old link is back; the message says what nginx was seen to do. */
export class NginxReloadError extends ToolError {
  override readonly exitCode = EXIT.manual;
}
