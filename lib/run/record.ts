import { readFileSync } from "node:fs";
import { COLORS } from "../color.ts";
import { type Infer, z } from "../util/zod.ts";

const Color = z.enum(COLORS);
/** The scripts that take the lock. */
const Verb = z.enum(["deploy", "rollback", "end-sessions"]);
export type Verb = Infer<typeof Verb>;

/** The run record: what a run writes about itself into the lock file, for whoever finds it locked and for the run after a crash. */
export const RunRecord = z.object({
  verb: Verb,
  pid: z.number(),
  /** When the run began: ISO 8601, UTC. */
  since: z.string(),
  /** When the record was last written: a killed run was alive then. */
  updated: z.string().optional(),
  from: Color.optional(),
  to: Color.optional(),
  /** `from` was seen to serve when the run began. */
  serves: z.boolean().optional(),
  /** The image that `to` had before this run built another; null for none. */
  imageBefore: z.string().nullable().optional(),
  /** The image that it pulls; once it is pulled, with its digest. */
  source: z.string().optional(),
  /** The container of `to` was, or was about to be, recreated. */
  started: z.boolean().optional(),
  /** `to` was verified in full through nginx, so it may be marked as active. */
  verified: z.boolean().optional(),
  /** Set while the other facts are still those of an earlier, unrecovered run: that run. `verb`, `pid` and `since` are this run's. */
  left: z.object({ verb: Verb, since: z.string(), result: z.string().optional() }).optional(),
  /** Old nginx workers may serve both colors, so a drain must not end them: there was a canary, a kept color, or a switch back. */
  sharedWorkers: z.boolean().optional(),
  /** The color that has open requests after its drain; for the end of the same run. */
  openOn: Color.optional(),
  /** How many requests it interrupted at the drain limit. */
  cut: z.number().optional(),
  /** The error of a run that ended half done. A killed run could not write it. */
  result: z.string().optional(),
});
export type RunRecord = Infer<typeof RunRecord>;

/** How a run ended that left something to repair, in words. */
export const howItEnded = ({ verb, since, result }: RunRecord): string =>
  `the ${verb} of ${since} ${result ? `ended with ${result}` : "was killed before it finished"}`;

/** The record in a lock file; undefined when the last run finished, or there was none. Never throws. */
export function readRunRecord(file: string): RunRecord | undefined {
  try {
    return RunRecord.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return undefined;
  }
}

/** The record of the run that left something to repair: a later run that did not come to its end either is not the cause. */
export const originalRecord = (record: RunRecord | undefined): RunRecord | undefined =>
  record?.left ? { ...record, result: undefined, ...record.left, left: undefined } : record;
