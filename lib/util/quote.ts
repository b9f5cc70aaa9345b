/** An argument for any POSIX shell. zx's own quoting needs bash. */
export const quote = (arg: string): string =>
  /^[\w/.:=@%+,-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`;
