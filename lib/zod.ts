import { createRequire } from "node:module";

/** zod as CommonJS: as ES modules it is a hundred files, which tsx's loader looks up one by one at each start (30 to 80 ms). */
export const { z } = createRequire(import.meta.url)("zod") as typeof import("zod");

/** What a schema gives. */
export type { infer as Infer } from "zod";
