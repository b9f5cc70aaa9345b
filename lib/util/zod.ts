import { createRequire } from "node:module";

/** zod as CommonJS: its ES modules are a hundred files, which tsx resolves one by one at each start (30 to 80 ms). */
export const { z } = createRequire(import.meta.url)("zod") as typeof import("zod");

/** The type that a schema parses to. */
export type { infer as Infer } from "zod";
