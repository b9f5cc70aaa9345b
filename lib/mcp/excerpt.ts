import { visible } from "../util/visible.ts";

/** The characters of a server's text that are printed at most. */
const MOST_CHARACTERS = 300;

/** Makes a text of a server safe to print. */
export type Excerpt = (text: string) => string;

/** The excerpts of a run that sends this token: one escaped line of 300 characters at most, without the token. */
export const excerptWithout =
  (token: string | undefined): Excerpt =>
  (text) => {
    // Hidden before the cut, which could otherwise leave the beginning of the token.
    const hidden = token === undefined ? text : text.replaceAll(token, "[LOOP_TOKEN]");
    const line = visible(hidden.slice(0, 4 * MOST_CHARACTERS).replace(/\s+/g, " ")).trim();
    return line.length > MOST_CHARACTERS ? `${line.slice(0, MOST_CHARACTERS)}…` : line;
  };
