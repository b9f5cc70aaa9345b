import { request } from "undici";

/** Calls a tool of the example API through nginx at `url`. */
export const callTool = (url: string, name: string, args: object) =>
  request(`${url}/mcp`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }),
  });
