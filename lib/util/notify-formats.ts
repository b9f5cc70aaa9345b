/** What a service is told about a run. */
export interface Notification {
  /** For programs: anything that JSON can hold. */
  document: unknown;
  /** For people: the result and the figures. One line each, without control characters, at most 200 and 600 characters. */
  title: string;
  details: string;
  /** `manual`: somebody has to act. */
  level: "done" | "failed" | "manual";
}

/** How one service wants to be told, and how it says that it has accepted a notification. */
interface Format {
  /** The headers and the body of a POST. */
  post(notification: Notification): { headers: Record<string, string>; body: string };
  /** The field that is true in its JSON response when it has accepted a notification. Without one, the status says so. */
  accepted?: string;
}

const json = (document: unknown) => ({
  headers: { "content-type": "application/json" },
  body: JSON.stringify(document),
});

const linesOf = ({ title, details }: Notification): string => `${title}\n${details}`;

const SLACK_ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
/** Slack reads <!channel> as a mention and <url|text> as a link. */
const slackText = (text: string): string =>
  text.replace(/[&<>]/g, (character) => SLACK_ENTITIES[character] ?? character);

/** A webhook's [text](url) would show a link whose target nobody sees. */
const discordText = (text: string): string => text.replace(/[\\*_~`|<[]/g, "\\$&");
/** SUPPRESS_EMBEDS */
const DISCORD_NO_PREVIEW = 1 << 2;

/** <url|text> would hide the target of a link, and Synology documents no escape. */
const synologyText = (text: string): string => text.replaceAll("<", "‹").replaceAll(">", "›");

/** The bytes of UTF-8 that fit into an encoded word: RFC 2047 allows 75 characters, 12 of them for its frame. */
const WORD_BYTES = 45;

/** A header value: itself if it is ASCII, else RFC 2047's encoded words. */
function headerValue(text: string): string {
  if (/^[\x20-\x7e]*$/.test(text)) return text;
  // A character takes 4 bytes at most, and none may be split between two words.
  const parts = text.match(new RegExp(`.{1,${Math.floor(WORD_BYTES / 4)}}`, "gsu")) ?? [];
  return parts.map((part) => `=?UTF-8?B?${Buffer.from(part).toString("base64")}?=`).join(" ");
}

const NTFY = {
  done: { priority: "default", tags: "heavy_check_mark" },
  failed: { priority: "high", tags: "warning" },
  manual: { priority: "urgent", tags: "rotating_light" },
} as const;

const formats = {
  json: { post: ({ document }) => json(document) },
  // The previews are off because a text may contain a URL of a client or a container, which the service would fetch.
  slack: {
    post: (notification) =>
      json({
        text: slackText(linesOf(notification)),
        mrkdwn: false,
        unfurl_links: false,
        unfurl_media: false,
      }),
  },
  discord: {
    post: (notification) =>
      json({
        content: discordText(linesOf(notification)),
        allowed_mentions: { parse: [] },
        flags: DISCORD_NO_PREVIEW,
      }),
  },
  ntfy: {
    post: ({ title, details, level }) => ({
      headers: { "content-type": "text/plain; charset=utf-8", title: headerValue(title), ...NTFY[level] },
      body: details,
    }),
  },
  telegram: {
    // Without parse_mode, Telegram reads no markup.
    post: (notification) =>
      json({ text: linesOf(notification), link_preview_options: { is_disabled: true } }),
    accepted: "ok",
  },
  "synology-chat": {
    post: (notification) => ({
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: `payload=${encodeURIComponent(JSON.stringify({ text: synologyText(linesOf(notification)) }))}`,
    }),
    accepted: "success",
  },
} satisfies Record<string, Format>;

export type NotifyFormat = keyof typeof formats;

/** The formats of notifications. To add a service, add an entry. */
export const NOTIFY_FORMATS: Readonly<Record<NotifyFormat, Format>> = formats;

/** Their names, in the order of the table. */
export const NOTIFY_FORMAT_NAMES = Object.keys(formats) as NotifyFormat[];
