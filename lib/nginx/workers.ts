/** The mount point of nginx's configuration folder in its container. */
export const CONFIGURATION_FOLDER = "/etc/nginx";

/** nginx's configuration file in its container. */
export const CONFIGURATION = `${CONFIGURATION_FOLDER}/nginx-blue-green.conf`;

/** The active link in its container. */
export const ACTIVE_UPSTREAM = `${CONFIGURATION_FOLDER}/active-upstream.conf`;

/** A worker's process title, as a pattern that does not match the searching command itself. */
export const WORKER = "'[w]orker process'";

/** The addition to the title of a worker in graceful shutdown: it accepts no new requests and exits after its last one. */
export const SHUTTING_DOWN = "'[s]hutting down'";

/** The process titles in nginx's container, whose image has no ps. */
export const PROCESS_TITLES = "/proc/[0-9]*/cmdline";
