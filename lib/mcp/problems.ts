import { McpError } from "../errors.ts";

/** Throws McpError if a test found problems: one line each, safe to print. */
export function throwProblems(problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new McpError("The MCP smoke test failed", {
    details: problems.join("\n"),
    next: "Fix the new color. To accept removed tools, removed arguments and newly required arguments, use --allow-removed.",
  });
}
