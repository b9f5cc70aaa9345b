/** C0 but tab and newline, DEL, C1; and what turns the direction of text around or is a line break by another name. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;

const codeOf = (character: string): number => character.charCodeAt(0);

const escaped = (character: string): string =>
  codeOf(character) < 256
    ? `\\x${codeOf(character).toString(16).padStart(2, "0")}`
    : `\\u${codeOf(character).toString(16)}`;

/**
 * A text with its control characters escaped, so that they can be seen and do nothing. What containers, builds and Docker
 * say could otherwise move the cursor and rewrite what an owner reads.
 */
export const visible = (text: string): string => text.replace(CONTROL, escaped);

/** The same for JSON, which has an escape of its own for all of them. */
export const visibleJson = (json: string): string =>
  json.replace(CONTROL, (character) => `\\u${codeOf(character).toString(16).padStart(4, "0")}`);

/**
 * The same, with each line but the first set in by two spaces at least: a line that a container has slipped in must not look
 * like one of the tool's own, which begin where the time stamp ends.
 */
export const visibleLines = (text: string): string => visible(text).replace(/\n(?! {2})/g, "\n  ");
