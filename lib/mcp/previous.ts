import { McpError } from "../errors.ts";
import { type Access, useServer } from "./client.ts";
import type { ListedTool } from "./tools.ts";

/**
 * The tools of the serving color; undefined when there is no address, or when they cannot be listed, which `warn` gets. A serving
 * color that is broken must not stop the release that repairs it.
 */
export async function listPrevious(
  endpoint: URL | undefined,
  access: Access,
  warn: (message: string) => void,
): Promise<ListedTool[] | undefined> {
  if (!endpoint) return undefined;
  try {
    return await useServer(endpoint, access, warn, (server) => server.listTools());
  } catch (error) {
    if (!(error instanceof McpError)) throw error;
    warn(`not compared with the serving color: ${error.message}`);
    return undefined;
  }
}
