/** Where nginx has the folder of its configuration, in its container. */
export const CONFIGURATION_FOLDER = "/etc/nginx";

/** nginx's configuration, in its container. */
export const CONFIGURATION = `${CONFIGURATION_FOLDER}/nginx-blue-green.conf`;

/** The title that nginx gives to a worker, as a pattern that the command which looks for it does not match itself. */
export const WORKER = "'[w]orker process'";

/** What the title has besides, of a worker of before a reload: it takes no new requests, and ends with its last one. */
export const ENDING = "'[s]hutting down'";

/** Where the titles are, inside nginx's container: there is no ps, on either side. */
export const TITLES = "/proc/[0-9]*/cmdline";
