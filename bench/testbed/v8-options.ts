/**
 * V8's options for bundled scripts, which end before V8's optimizations pay off. Not optimizing undici's WebAssembly
 * (`--liftoff-only`) saves 0.15 CPU-s per run; not optimizing JavaScript (`--no-opt`) saves 0.1.
 */
export const V8_OPTIONS = ["--liftoff-only", "--no-opt"];
