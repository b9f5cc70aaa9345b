import { isDeepStrictEqual } from "node:util";

/** What a health response must contain, as parsed JSON. `{}`: any response with a 2xx status is enough, JSON or not. */
export type Expectation = Readonly<Record<string, unknown>>;

/** The expectation in a valid HEALTH_EXPECT; `{}` for an empty one. */
export const parseExpectation = (text: string): Expectation => (text === "" ? {} : JSON.parse(text));

/** The longest value of a response that a mismatch quotes, in characters. */
const LONGEST_VALUE = 40;

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function quoted(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text;
}

/**
 * Says how a health response first differs from what is expected, such as `status is "starting", expected "healthy"`; undefined
 * when it contains everything. Objects may have more keys; arrays and other values must be equal.
 */
export function mismatch(
  actual: unknown,
  expected: unknown,
  path: readonly string[] = [],
): string | undefined {
  const name = path.join(".") || "the response";
  if (!isObject(expected)) {
    if (isDeepStrictEqual(actual, expected)) return undefined;
    return `${name} is ${quoted(actual)}, expected ${quoted(expected)}`;
  }
  if (!isObject(actual)) return `${name} is ${quoted(actual)}, expected an object`;
  for (const [key, value] of Object.entries(expected)) {
    const here = [...path, key];
    if (!Object.hasOwn(actual, key)) return `${here.join(".")} is missing, expected ${quoted(value)}`;
    const found = mismatch(actual[key], value, here);
    if (found) return found;
  }
  return undefined;
}
