/**
 * The options of V8 for bundled scripts, which end before its optimizations pay off. Without those of undici's WebAssembly, a
 * run takes 0.15 CPU-s less; of JavaScript, 0.1.
 */
export const V8_OPTIONS = ["--liftoff-only", "--no-opt"];
