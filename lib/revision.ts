import { run } from "./command.ts";

/**
 * The commit that a folder's content is of, with "-dirty" behind it unless it was seen to have no other changes;
 * undefined where it is no git checkout, or there is no git. Never throws.
 */
export async function sourceRevision(folder: string): Promise<string | undefined> {
  // root's cron may look into a checkout of the owner's.
  const git = (...args: string[]) =>
    run("git", ["-c", "safe.directory=*", "-C", folder, ...args], { deadline: 10 }).catch(() => undefined);
  const [commit, changes] = await Promise.all([
    git("rev-parse", "HEAD"),
    git("status", "--porcelain", "--", "."),
  ]);
  if (commit?.exitCode !== 0) return undefined;
  const seenClean = changes?.exitCode === 0 && changes.stdout.trim() === "";
  return `${commit.stdout.trim()}${seenClean ? "" : "-dirty"}`;
}
