/** What the API must offer in its container. */
export const API = { port: 8081, healthPath: "/health", mcpPath: "/mcp" } as const;
