/** Is a version such as 20.10.24 or v2.26.1-4 at least as new as another? A missing part counts as 0; a text without numbers is not. */
export function isAtLeast(version: string, oldest: readonly number[]): boolean {
  const parts = version
    .match(/\d+(?:\.\d+)*/)?.[0]
    .split(".")
    .map(Number);
  if (!parts) return false;
  const different = oldest.findIndex((part, i) => part !== (parts[i] ?? 0));
  return different === -1 || (parts[different] ?? 0) > (oldest[different] ?? 0);
}
