/**
 * Runs test files one after the other in this process, each when its path arrives as a message, and answers with its exit
 * code. Starting a process and loading the libraries takes longer than most unit tests.
 */
const uvu: { UVU_DEFER?: boolean; UVU_QUEUE?: unknown[][] } = Object.assign(globalThis, {
  UVU_DEFER: true, // else test.run() would start the tests by itself, and nothing would tell when they end
});

process.on("message", async (path: string) => {
  const { exec } = await import("uvu");
  uvu.UVU_QUEUE?.splice(0, Number.POSITIVE_INFINITY, [null]); // one group of tests, without a name
  await import(path);
  await exec();
  process.send?.(process.exitCode ?? 0);
  process.exitCode = 0;
});
