import { EXIT } from "../errors.ts";
import type { Comparison } from "../traffic.ts";
import type { Notification } from "../util/notify-formats.ts";
import { visible } from "../util/visible.ts";
import { DONE, DONE_INTERRUPTED, stands } from "./history.ts";

/** The JSON document of a notification. */
export interface Notice {
  /** "done", "done, interrupted" (with the signal's exit code), or the name of the error, such as "HealthError". */
  result: string;
  exitCode: number;
  verb: string;
  project: string;
  /** The colors, if the run got far enough to know them. */
  from: string | undefined;
  to: string | undefined;
  seconds: number;
  /** How many requests were interrupted at the drain limit; left out if none. */
  cut?: number | undefined;
  /** The responses to clients that the run has judged. */
  traffic?: Comparison | undefined;
  message: string;
}

/** The longest lines, in characters. Escaped for any service, both fit into Discord's 2000 characters and ntfy's 4096 bytes. */
const [TITLE_MOST, DETAILS_MOST] = [200, 600];

/** A notice in words. The lines contain foreign text, such as the name of a file in an error message. */
export function inWords(notice: Notice): Notification {
  const good = stands(notice);
  return {
    document: notice,
    title: line(resultInWords(notice, good), TITLE_MOST),
    details: line(detailsOf(notice), DETAILS_MOST),
    level: good ? "done" : notice.exitCode === EXIT.manual ? "manual" : "failed",
  };
}

/** A text as one line: a newline in an error message must not add a line that looks like the tool's own. */
function line(text: string, most: number): string {
  const characters = [...visible(text.replace(/\s+/g, " "))];
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : characters.join("");
}

function resultInWords({ result, exitCode, verb, project, from, to }: Notice, good: boolean): string {
  const colors = from && to ? `, ${from} → ${to}` : "";
  const manual = exitCode === EXIT.manual ? ": manual intervention needed" : "";
  const why = result === DONE ? "" : ` (${reasonOf(result)}, exit code ${exitCode}${manual})`;
  return `${good ? "Done" : "Failed"}: ${verb} of ${project}${colors}${why}`;
}

/** The name of an error in words: "HealthError" is "health error". */
const reasonOf = (result: string): string =>
  result === DONE_INTERRUPTED ? "interrupted" : result.replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase();

/** The figures. The message comes last, so that a limit never cuts a figure. */
function detailsOf({ result, seconds, traffic, cut = 0, message }: Notice): string {
  return [
    `${seconds.toFixed(1)} s`,
    ...(traffic ? [trafficInWords(traffic)] : []),
    ...(cut > 0 ? [`${cut} ${cut === 1 ? "request" : "requests"} interrupted`] : []),
    ...(result === DONE ? [] : [message]),
  ].join(" · ");
}

const trafficInWords = ({ after, before, incomplete }: Comparison): string =>
  `${incomplete ? "at least " : ""}${after.responses} ${after.responses === 1 ? "response" : "responses"}, ${after.errors} with 5xx (before: ${before.responses}, ${before.errors})`;
