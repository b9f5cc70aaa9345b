/** nginx's table of connections, in its container. */
export const CONNECTIONS = "/proc/net/tcp";

const ESTABLISHED = "01";

/** How many connections in this table lead to this port of one of these IPv4 addresses. */
export function connectionsTo(addresses: readonly string[], port: number, table: string): number {
  // The kernel's table has hexadecimal addresses, last byte first: 172.18.0.3:8081 is 030012AC:1F91.
  const portInHex = port.toString(16).padStart(4, "0");
  const remotes = addresses.map((address) => {
    const bytes = address
      .split(".")
      .reverse()
      .map((byte) => Number(byte).toString(16).padStart(2, "0"));
    return `${bytes.join("")}:${portInHex}`.toUpperCase();
  });
  const rows = table.split("\n").map((row) => row.trim().split(/\s+/));
  return rows.filter(([, , remote, state]) => state === ESTABLISHED && remotes.includes(remote ?? "")).length;
}
