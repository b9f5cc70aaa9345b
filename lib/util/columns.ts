/**
 * Characters that terminals draw two columns wide: East Asian scripts, full-width forms, emoji. Where terminals disagree, two
 * is the safe answer: a line that wraps would push the first line off the screen.
 */
const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{16fe0}-\u{18dff}\u{1aff0}-\u{1b2ff}\u{1f000}-\u{3fffd}]|\p{Emoji_Presentation}/u;

/** The start of a text that fits into so many columns of a terminal. The text has no control characters. */
export function cut(text: string, columns: number): string {
  let [kept, used] = ["", 0];
  for (const character of text) {
    used += WIDE.test(character) ? 2 : 1;
    if (used > columns) return kept;
    kept += character;
  }
  return kept;
}
