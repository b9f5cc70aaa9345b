/** C0 except tab and newline, DEL, C1, and Unicode's bidirectional controls and line separators. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it has to match them
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;

const codeOf = (character: string): number => character.charCodeAt(0);

const escaped = (character: string): string =>
  codeOf(character) < 256
    ? `\\x${codeOf(character).toString(16).padStart(2, "0")}`
    : `\\u${codeOf(character).toString(16)}`;

/**
 * A text with its control characters escaped. The output of containers, builds and Docker could otherwise move the cursor and
 * rewrite what an owner reads.
 */
export const visible = (text: string): string => text.replace(CONTROL, escaped);

/** The same with JSON's own escapes. */
export const visibleJson = (json: string): string =>
  json.replace(CONTROL, (character) => `\\u${codeOf(character).toString(16).padStart(4, "0")}`);

/**
 * The same, with each line but the first indented by at least two spaces, so that no line of a container looks like one of
 * the tool's own.
 */
export const visibleLines = (text: string): string => visible(text).replace(/\n(?! {2})/g, "\n  ");
