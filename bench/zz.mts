import { ways } from "./saturation.ts";
import { join } from "node:path";
import { ROOT } from "../lib/settings.ts";
import { saturationTable } from "./report.ts";
const r = await ways("static", { LOOP_API_CONTEXT: join(ROOT, "bench/static-api") }, 4);
console.log(saturationTable(r.saturation), r.reach);
