import { type Infer, z } from "./util/zod.ts";

/** The responses of one color to clients. */
const Traffic = z.object({
  responses: z.number(),
  /** Those with a 5xx status, nginx's own 502 and 504 included. */
  errors: z.number(),
  /** 95 % of the responses took no longer than this, in seconds; null without responses. */
  p95: z.number().nullable(),
});
export type Traffic = Infer<typeof Traffic>;

/** Those of the new color during the canary and the verification, and those of the previous color before that. */
export const Comparison = z.object({
  after: Traffic,
  before: Traffic,
  /** nginx's log ended early, so responses are missing in `after`. */
  incomplete: z.literal(true).optional(),
});
export type Comparison = Infer<typeof Comparison>;
