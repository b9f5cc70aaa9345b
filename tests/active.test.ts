import { test } from "uvu";
import * as assert from "uvu/assert";
import { type CutOff, decide, forWayBack, type Proof, type Seen, type Truth } from "../lib/active.ts";
import { COLORS, type Color, getInactiveColor } from "../lib/color.ts";
import type { State } from "../lib/docker/container.ts";

const STATES: State[] = ["running", "stopped", "absent"];
const RECORDS: (CutOff | undefined)[] = [
  undefined,
  { verb: "deploy" },
  ...COLORS.flatMap((to): CutOff[] => [
    { verb: "deploy", to },
    { verb: "deploy", to, verified: true },
    { verb: "deploy", to, result: "NginxReloadError" },
    { verb: "rollback", to },
    { verb: "rollback", to, verified: true },
  ]),
];
const every: Seen[] = [undefined, ...COLORS].flatMap((nginx) =>
  STATES.flatMap((blue) =>
    STATES.flatMap((green) =>
      [undefined, ...COLORS, "third.conf"].flatMap((link) =>
        [undefined, ...COLORS].flatMap((file) =>
          RECORDS.map((cutOff) => ({ nginx, containers: { blue, green }, link, file, cutOff })),
        ),
      ),
    ),
  ),
);

/** The rows of the table in `decide`'s docstring; the first that fits one of the colors, as X, counts. */
type Row = [
  name: string,
  fits: (seen: Seen, x: Color, y: Color) => boolean,
  then: (seen: Seen, x: Color, y: Color) => Partial<Truth> & Pick<Truth, "active">,
];
const runs = ({ containers }: Seen, color: Color) => containers[color] === "running";
const none = ({ nginx }: Seen) => nginx === undefined;
const recorded = ({ cutOff }: Seen) => (cutOff?.verified ? cutOff.to : undefined);
/** X is the one to prefer: it was marked, and nothing newer was verified. */
const marked = (seen: Seen, x: Color) => (recorded(seen) ?? seen.file) === x;
const serves =
  (proof: Proof) =>
  (seen: Seen, active: Color): Truth => ({
    active,
    serves: true,
    marked: recorded(seen) ?? seen.file,
    proof,
    bothRun: runs(seen, getInactiveColor(active)),
    rescue: [],
    wrong: (["link", "file"] as const).filter((place) => seen[place] !== active),
  });
const ROWS: Row[] = [
  ["X serves, marked, Y runs", (s, x, y) => s.nginx === x && s.file === x && runs(s, y), serves("nothing")],
  ["X serves, marked", (s, x) => s.nginx === x && (s.file === x || recorded(s) === x), serves("nothing")],
  [
    "Y serves, of a deploy that was cut off",
    (s, x, y) =>
      s.nginx === y && s.file === x && s.cutOff?.verb === "deploy" && s.cutOff.to === y && !s.cutOff.result,
    (s, _, y) => serves("go back")(s, y),
  ],
  [
    "Y serves, of a rollback that was cut off, or switched to after a failed reload",
    (s, x, y) => s.nginx === y && s.file === x && s.cutOff?.to === y,
    (s, _, y) => serves("verify or go back")(s, y),
  ],
  ["Y serves, unexplained", (s, _, y) => s.nginx === y, (s, _, y) => serves("verify")(s, y)],
  [
    "nobody serves, X marked, X runs",
    (s, x) => none(s) && marked(s, x) && runs(s, x),
    (s, x, y) => ({ active: x, rescue: runs(s, y) ? [x, y] : [x] }),
  ],
  [
    "nobody serves, X marked, only Y runs",
    (s, x, y) => none(s) && marked(s, x) && runs(s, y),
    (_, x, y) => ({ active: x, rescue: [x, y] }),
  ],
  ["none runs, X marked", (s, x) => none(s) && marked(s, x), (_, active) => ({ active })],
  [
    "nothing marked, only X runs",
    (s, x, y) => none(s) && runs(s, x) && !runs(s, y),
    (_, active) => ({ active, rescue: [active] }),
  ],
  [
    "nothing marked, link",
    (s, x) => none(s) && s.link === x,
    (s, x, y) => ({ active: x, rescue: runs(s, x) ? [x, y] : [] }),
  ],
  [
    "nothing is known",
    (s, x) => none(s) && x === "blue",
    (s, x, y) => ({ active: x, rescue: runs(s, x) ? [x, y] : [] }),
  ],
];

test("each combination is one row of the table, and each row is met", () => {
  const met = new Set<string>();
  for (const seen of every) {
    const [first] = ROWS.flatMap(([name, fits, then]) =>
      COLORS.filter((x) => fits(seen, x, getInactiveColor(x))).map((x) => ({
        name,
        truth: then(seen, x, getInactiveColor(x)),
      })),
    );
    assert.ok(first, `no row for ${JSON.stringify(seen)}`);
    met.add(first.name);
    const idle: Omit<Truth, "active"> = {
      serves: false,
      marked: recorded(seen) ?? seen.file,
      proof: "nothing",
      bothRun: COLORS.every((color) => runs(seen, color)),
      rescue: [],
      wrong: [],
    };
    assert.equal(decide(seen), { ...idle, ...first.truth }, `${first.name}: ${JSON.stringify(seen)}`);
  }
  assert.is(every.length, 3 * 9 * 4 * 3 * RECORDS.length);
  assert.equal([...met].toSorted(), ROWS.map(([name]) => name).toSorted());
});

test("what serves is never the one that is released to, and neither is the marked one while nobody serves", () => {
  for (const seen of every) {
    const { active, marked } = decide(seen);
    assert.is(active, seen.nginx ?? marked ?? active);
  }
});

test("no color is taken for the active one that was not marked, and of which no full verification is recorded", () => {
  for (const seen of every) {
    const { active, serves, proof } = decide(seen);
    if (serves && proof === "nothing") assert.ok([seen.file, recorded(seen)].includes(active));
  }
});

test("a rollback leaves what serves without proving it, takes back a release, and proves what it only finishes", () => {
  for (const seen of every) {
    const truth = decide(seen);
    const ofRelease =
      seen.cutOff?.verb === "deploy" && seen.cutOff.to === seen.nginx && seen.file !== undefined;
    const wanted: Proof = truth.proof === "nothing" ? "nothing" : ofRelease ? "go back" : "leave";
    assert.is(forWayBack(truth, seen.cutOff, false).proof, wanted, JSON.stringify(seen));
    assert.equal(forWayBack(truth, seen.cutOff, true), truth);
  }
});
test.run();
