import { type Stats, statSync } from "node:fs";
import { ROOT } from "../settings.ts";

/** The owner of the checkout decides what root runs, so root trusts their files. */
export const checkoutOwner = (): Stats => statSync(ROOT);

/** Says in words that others can write to a file or folder; undefined when only its owner can. */
export const openToOthers = ({ mode }: Stats): string | undefined =>
  (mode & 0o022) === 0 ? undefined : `its mode is ${(mode & 0o777).toString(8)}, so others can write to it`;

/** Says in words that a file or folder belongs to somebody who does not decide what this run does; undefined otherwise. */
export const strangeOwner = ({ uid }: Stats): string | undefined =>
  [0, process.getuid?.(), checkoutOwner().uid].includes(uid)
    ? undefined
    : `it belongs to the user ${uid}, who is neither root, nor you, nor the owner of the checkout`;
