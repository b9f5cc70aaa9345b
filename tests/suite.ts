import { suite as uvuSuite } from "uvu";

/** uvu's suite, but it fails when a `before` hook fails. uvu itself prints nothing, skips the tests and exits with 0. */
export function suite<T>(name: string): ReturnType<typeof uvuSuite<T>> {
  const inner = uvuSuite<T>(name);
  const { before } = inner;
  const failingBefore: typeof before = Object.assign(
    (hook: Parameters<typeof before>[0]) =>
      before(async (context) => {
        try {
          await hook(context);
        } catch (error) {
          console.error(`\nbefore the tests of "${name}":`, error);
          process.once("exit", () => {
            process.exitCode = 1;
          });
          throw error;
        }
      }),
    { each: before.each },
  );
  return Object.assign(inner, { before: failingBefore });
}
