import { isIP, isIPv4 } from "node:net";
import { z } from "./zod.ts";

/** The formats of settings, as zod schemas. Each error continues the sentence "it …". */
const number = (shape: RegExp, must: string) => z.string().regex(shape, must).transform(Number);

const A_PORT = "must be a port from 1 to 65535";
/** A TCP port. */
export const port = number(/^\d+$/, A_PORT).refine((value) => value >= 1 && value <= 65535, A_PORT);

const A_PATH =
  "must be a path such as /health: letters, digits, -, _, ., ~ and /, without .. and not below /_loop/";
/** The path of a health check. Strict, because it becomes part of a URL, and of messages. */
export const healthPath = z
  .string()
  .refine(
    (text) =>
      text.startsWith("/") &&
      /^(\/[A-Za-z0-9._~-]+)*\/?$/.test(text) &&
      !/\/\.+(\/|$)/.test(text) &&
      !/^\/_loop(\/|$)/.test(text),
    A_PATH,
  );

/** Is it the text of a JSON object? */
function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
/** What a health response must contain, as text; empty for any 2xx status. */
export const expectation = z
  .string()
  .refine(
    (text) => text === "" || isJsonObject(text),
    'must be a JSON object such as {"status":"ok"}, or empty for any 2xx status',
  );

const A_COUNT = "must be a whole number, 1 or more";
/** A whole number from 1. */
export const count = number(/^\d+$/, A_COUNT).refine((value) => value >= 1, A_COUNT);

const A_PERCENTAGE = "must be a number from 0 to 100";
/** A percentage. */
export const percent = number(/^\d+(\.\d+)?$/, A_PERCENTAGE).refine((value) => value <= 100, A_PERCENTAGE);

const A_SHARE = "must be a percentage from 0 to 50, such as 10 or 0.5, with at most two decimals";
/** The share of a canary, in nginx's notation without the sign. */
export const canaryPercent = number(/^\d+(\.\d{1,2})?$/, A_SHARE).refine((value) => value <= 50, A_SHARE);

const A_TIME = "must be a number of seconds up to a day, such as 10 or 0.5";
/** Seconds, 0 included. */
export const seconds = number(/^\d+(\.\d+)?$/, A_TIME).refine((value) => value <= 86_400, A_TIME);
/** More than 0 seconds. */
export const someSeconds = seconds.refine((value) => value > 0, "must be more than 0 seconds");

const AN_IDLE_TIME = "must be 0, or a number of seconds from 0.1 to a day";
/** An idle timeout in seconds; 0 for connections that are not reused. */
export const idleSeconds = number(/^\d+(\.\d+)?$/, AN_IDLE_TIME).refine(
  (value) => value === 0 || (value >= 0.1 && value <= 86_400),
  AN_IDLE_TIME,
);

const size = (must: string) => z.string().regex(/^(0|[1-9]\d*[kmg]?)$/i, must);
const UNITS: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };
/** The bytes of a size such as 512m. */
export const bytesIn = (text: string): number =>
  Number.parseInt(text, 10) * (UNITS[text.slice(-1).toLowerCase()] ?? 1);

const A_MEMORY = "must be a size of at least 6m, such as 512m or 1g, or 0 for no limit";
/** A container's memory limit; Docker refuses less than 6m. */
export const memoryLimit = size(A_MEMORY).refine(
  (text) => text === "0" || bytesIn(text) >= 6 * 2 ** 20,
  A_MEMORY,
);

/** The largest request body. */
export const bodySize = size("must be a size such as 100m; 0 for no limit");

const A_TMPFS = "must be a size such as 256m";
/** The size of a tmpfs: 0 would mean half of the host's memory. */
export const tmpfsSize = size(A_TMPFS).refine((text) => text !== "0", A_TMPFS);

/** The largest number of processes. */
export const processLimit = z.string().regex(/^\d+$/, "must be a whole number; 0 for no limit");

/** Docker's notation of an image: `[registry[:port]/]name[:tag][@digest]`. */
const NAME = /[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*/.source;
const REFERENCE = new RegExp(
  `^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\\d+)?/)?${NAME}(?:/${NAME})*(?::\\w[\\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?)?$`,
);
/** An image that Docker can pull, or nothing. */
export const imageReference = z
  .string()
  .max(255, "must be 255 characters at most")
  .regex(REFERENCE, "must be an image such as ghcr.io/me/api:1.4, or one with @sha256:… at its end");

/** A registry, with the first part of the repository's name if there is one, such as `registry.lan:5000/me`. */
export const registry = z
  .string()
  .max(128, "must be 128 characters at most")
  .regex(
    new RegExp(`^[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\\d+)?(?:/${NAME})*$`),
    "must be a registry such as registry.lan:5000, or ghcr.io/me",
  );

/** An IPv4 address. */
export const ipv4 = z.string().refine(isIPv4, "must be an IPv4 address of this machine, such as 127.0.0.1");

/** Is it an address, or a network such as 10.0.0.0/8? Strict, because it is written into nginx's configuration. */
function isNetwork(text: string): boolean {
  const [address = "", bits, ...more] = text.split("/");
  const version = isIP(address);
  if (version === 0 || address.includes("%") || more.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}

/** Addresses and networks, separated by spaces or commas. */
export const networks = z
  .string()
  .transform((text) => text.split(/[\s,]+/).filter((part) => part !== ""))
  .refine(
    (parts) => parts.every(isNetwork),
    "must be addresses or networks such as 172.18.0.1 or 10.0.0.0/8",
  );
