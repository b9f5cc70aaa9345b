import { suite as uvuSuite } from "uvu";

/** uvu's suite, but red when a `before` fails: uvu says nothing then, skips the tests and ends well. */
export function suite<T>(name: string): ReturnType<typeof uvuSuite<T>> {
  const made = uvuSuite<T>(name);
  const { before } = made;
  const loud: typeof before = Object.assign(
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
  return Object.assign(made, { before: loud });
}
