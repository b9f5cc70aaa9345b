/** A configuration file of nginx that runs generate. */
export interface GeneratedFile {
  file: string;
  content: string;
  /** Its permissions. nginx's master process reads it as root. */
  mode: number;
}
