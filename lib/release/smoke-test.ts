import { SmokeError } from "../errors.ts";
import type { Context } from "../run/context.ts";
import { failureDetails, runOwnerCommand } from "../run/owner-command.ts";
import { quote } from "../util/quote.ts";
import { openColorUrls } from "./color-urls.ts";
import { loopVariables } from "./loop-variables.ts";

/**
 * Runs SMOKE_COMMAND against the new color, for SMOKE_SECONDS at most; without that setting, does nothing.
 * Throws SmokeError with how it ended and the last lines of its output, InterruptedError.
 */
export async function smokeTest(context: Context): Promise<void> {
  const { command, seconds } = context.settings.smoke;
  if (command === undefined) return;
  const shell = ["/bin/sh", "-c", command];
  const test = async (): Promise<void> => {
    const close = await openColorUrls(context);
    const ended = await runOwnerCommand(context, shell, seconds, loopVariables(context)).finally(close);
    if (!ended.failure) return;
    throw new SmokeError("Smoke test failed", {
      details: failureDetails(ended),
      next: "Fix what its output shows and deploy again; no traffic was moved.",
    });
  };
  await context.change("run the smoke test", test, [shell.map(quote).join(" ")]);
}
