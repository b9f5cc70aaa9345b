import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Finding } from "../../lib/doctor/finding.ts";
import { describeFinding, describeTotal, reportOf } from "../../lib/doctor/text.ts";

const FINDINGS: Finding[] = [
  { check: "engine", level: "ok", finding: "Docker 20.10.24" },
  { check: "memory", level: "warning", finding: "12 MiB free, swap included.", next: "Add swap." },
  { check: "blue port", level: "problem", finding: "in use\n  by the process x", next: "Stop it,\nor wait." },
];

test("a finding is one line: a sign, the check, what was seen, and what to do", () => {
  assert.equal(FINDINGS.map(describeFinding), [
    "✓ engine         Docker 20.10.24",
    "! memory         12 MiB free, swap included. Add swap.",
    "✗ blue port      in use; by the process x. Stop it, or wait.",
  ]);
});

test("foreign text cannot control the terminal", () => {
  const finding: Finding = {
    check: "trial",
    level: "problem",
    finding: "\x1b[2J\rdone",
    next: "See \x07it.",
  };
  assert.is(describeFinding(finding), "✗ trial          \\x1b[2J\\x0ddone. See \\x07it.");
});

test("the last line counts, with the plural only where there are several", () => {
  assert.is(describeTotal(FINDINGS), "3 checks: 1 ok, 1 warning, 1 problem");
  assert.is(describeTotal([...FINDINGS, ...FINDINGS]), "6 checks: 2 ok, 2 warnings, 2 problems");
  assert.is(describeTotal(FINDINGS.slice(0, 1)), "1 check: 1 ok, 0 warnings, 0 problems");
});

test("the JSON has all findings and their counts", () => {
  assert.equal(reportOf(FINDINGS), { findings: FINDINGS, ok: 1, warnings: 1, problems: 1 });
});
test.run();
