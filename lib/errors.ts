import type { Comparison } from "./traffic.ts";

/** The exit codes; docs/reference.md has the table for owners. */
export const EXIT = { done: 0, failed: 1, usage: 2, manual: 3, locked: 4 } as const;

interface Report {
  /** What to do next: a sentence that an owner can act on at 03:00. */
  next: string;
  /** What was seen: log lines, a response, a command's output. */
  details?: string;
}

/** An expected failure. Anything else that is thrown is a bug. */
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

/** A wrong option or setting. Nothing was changed. */
export class UsageError extends ToolError {
  override readonly exitCode = EXIT.usage;
}

/** A state file cannot be read or written, or names neither blue nor green. */
export class StateFileError extends ToolError {}

/** The vault is empty although earlier releases used it: it is probably not mounted. Nothing was changed. */
export class EmptyVaultError extends ToolError {}

/** Docker or Compose is missing, does not answer, or rejected a command. */
export class DockerError extends ToolError {}

/** An external command exceeded its time limit and was killed. */
export class DeadlineError extends DockerError {}

/** The compose file cannot be read. Nothing was changed. */
export class ComposeFileError extends UsageError {}

/** Docker's disk has less free space than the last image took. Nothing was changed. */
export class DiskSpaceError extends ToolError {}

/** Another run holds the lock of the same stack. Nothing was changed. */
export class LockedError extends ToolError {
  override readonly exitCode = EXIT.locked;
}

/** The signals that ask a run to end, with the shell's exit code for each: 128 + its number. */
export const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** A signal asked the run to end. Unfinished work was undone. */
export class InterruptedError extends ToolError {
  override readonly exitCode: number;

  constructor(signal: keyof typeof SIGNALS) {
    super(`Interrupted by ${signal}`, { next: "Run it again at any time." });
    this.exitCode = SIGNALS[signal];
  }
}

/** The build failed. The serving color was not touched. */
export class BuildError extends ToolError {}

/** An image cannot be pulled, or is for other machines. The serving color was not touched. */
export class PullError extends ToolError {}

/** The active link is not a symbolic link. Nothing was changed. */
export class LinkError extends ToolError {}

/** nginx rejected its configuration before anything was started. Nothing was changed. */
export class ConfigurationError extends ToolError {}

/** The host has less free memory than a second color would need. Nothing was started. */
export class MemoryError extends ToolError {}

/** Something else holds the host port of the color. Nothing was started. */
export class PortConflictError extends ToolError {}

/** Both colors run, and nobody said which to keep. Nothing was stopped. */
export class BothRunningError extends ToolError {}

/** There is no other color to roll back to. */
export class NothingToRollBackToError extends ToolError {}

/** The new color did not become healthy, or nginx cannot reach it. No traffic was moved. */
export class HealthError extends ToolError {}

/** The smoke test failed, or took too long. No traffic was moved. */
export class SmokeError extends ToolError {}

/** A hook before the build or before the switch failed, or took too long. No traffic was moved. */
export class HookError extends ToolError {}

/** After the switch, or as a canary, a response was unhealthy or from the wrong color. */
export class VerifyError extends ToolError {}

/** After the switch, or as a canary, a new color gave clients too many responses with a 5xx status. */
export class VerdictError extends ToolError {
  readonly traffic: Comparison;

  constructor(message: string, { traffic, ...report }: Report & { traffic: Comparison }) {
    super(message, report);
    this.traffic = traffic;
  }
}

/** The serving color cannot be verified, and the marked color cannot take over. Nothing was marked, built or removed. */
export class UnverifiedError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** The old color could not be stopped. The release itself stands. */
export class StopError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** The undo could not be completed, or the traffic was not seen to be back. */
export class NotBackError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** nginx did not load the new upstream. The message says where the link points now, and what nginx was seen to do. */
export class NginxReloadError extends ToolError {
  override readonly exitCode = EXIT.manual;
}

/** An MCP server failed its smoke test. */
export class McpError extends ToolError {}

/** An MCP server asks for a bearer token, as it should, and there is none. */
export class AuthorizationNeededError extends McpError {}
