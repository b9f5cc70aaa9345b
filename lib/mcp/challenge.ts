const TOKEN = "[!#$%&'*+.^_`|~\\w-]+";
const QUOTED = '"(?:[^"\\\\]|\\\\.)*"';
const PARAMETER = `${TOKEN}\\s*=\\s*(?:${TOKEN}|"")`;
const BEARER = new RegExp(`(?:^|,)\\s*Bearer(?:\\s+${PARAMETER}(?:\\s*,\\s*${PARAMETER})*)?\\s*(?:,|$)`, "i");
const METADATA = new RegExp(`\\bresource_metadata\\s*=\\s*(${QUOTED}|${TOKEN})`, "i");

/**
 * Does this WWW-Authenticate header ask for a bearer token, as RFC 6750 defines? Other challenges may stand beside it. A
 * `resource_metadata` (RFC 9728) is optional, but must be an http or https address.
 */
export function asksForToken(header: string | null): boolean {
  if (header === null) return false;
  // Quoted texts are emptied first: they may contain commas, and the word Bearer.
  if (!BEARER.test(header.replace(new RegExp(QUOTED, "g"), '""'))) return false;
  const metadata = header.match(METADATA)?.[1]?.replace(/^"|"$/g, "");
  return metadata === undefined || (/^https?:\/\//i.test(metadata) && URL.canParse(metadata));
}
