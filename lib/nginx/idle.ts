import { execInNginx } from "../docker/services.ts";
import type { Context } from "../run/context.ts";

/**
 * Sends one GET from nginx's container, and watches the idle connection. Prints the seconds until the server closed it, or
 * "open", and then the response. Uses Bash's /dev/tcp, because nginx's image has no other program that opens connections.
 */
const WATCH = `
exec 3<>"/dev/tcp/$1/$2" || { echo refused; exit; }
printf 'GET %s HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' "$3" >&3
begun=\${EPOCHREALTIME/./}
head=$(timeout "$4" cat <&3 | { head -c 16384; cat >/dev/null; } | tr -d '\\0'; code=\${PIPESTATUS[0]}; echo; echo "$code")
[ "\${head##*$'\\n'}" = 124 ] && echo open || echo "$(((\${EPOCHREALTIME/./} - begun) / 1000))"
echo "$head"
`;

/**
 * Does the server at this address, in nginx's networks, close an idle connection unannounced within `seconds`? Returns the
 * seconds until then and the response; undefined if it does not, "refused" if it accepts no connection, "unknown" if nginx's image has no bash.
 */
export async function closedForNginx(
  context: Context,
  address: string,
  port: number,
  path: string,
  seconds: number,
): Promise<{ seconds: number; head: string } | undefined | "refused" | "unknown"> {
  const args = ["bash", "-c", WATCH, "bash", address, String(port), path, seconds.toFixed(2)];
  const output = await execInNginx(context, args, seconds);
  if (output.exitCode !== 0) return "unknown";
  const [first = "", ...head] = output.stdout.split("\n");
  if (first === "refused") return "refused";
  return first === "open" ? undefined : { seconds: Number(first) / 1000, head: head.join("\n") };
}
