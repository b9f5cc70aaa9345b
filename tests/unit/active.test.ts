import { test } from "uvu";
import * as assert from "uvu/assert";
import { COLORS, type Color, getInactiveColor } from "../../lib/color.ts";
import type { State } from "../../lib/docker/container.ts";
import {
  type ActiveState,
  forRollback,
  type InterruptedRun,
  type Observation,
  type Proof,
  resolveActive,
} from "../../lib/release/active.ts";

const STATES: State[] = ["running", "stopped", "absent"];
const RECORDS: (InterruptedRun | undefined)[] = [
  undefined,
  { verb: "deploy" },
  ...COLORS.flatMap((to): InterruptedRun[] => [
    { verb: "deploy", to },
    { verb: "deploy", to, verified: true },
    { verb: "deploy", to, result: "NginxReloadError" },
    { verb: "rollback", to },
    { verb: "rollback", to, verified: true },
  ]),
];
const every: Observation[] = [undefined, ...COLORS].flatMap((nginx) =>
  STATES.flatMap((blue) =>
    STATES.flatMap((green) =>
      [undefined, ...COLORS, "third.conf"].flatMap((link) =>
        [undefined, ...COLORS].flatMap((file) =>
          RECORDS.map((interrupted) => ({ nginx, containers: { blue, green }, link, file, interrupted })),
        ),
      ),
    ),
  ),
);

/** The rows of the table in `decide`'s docstring; the first that fits one of the colors, as X, counts. */
type Row = [
  name: string,
  fits: (observation: Observation, x: Color, y: Color) => boolean,
  then: (observation: Observation, x: Color, y: Color) => Partial<ActiveState> & Pick<ActiveState, "active">,
];
const runs = ({ containers }: Observation, color: Color) => containers[color] === "running";
const none = ({ nginx }: Observation) => nginx === undefined;
const recorded = ({ interrupted }: Observation) => (interrupted?.verified ? interrupted.to : undefined);
/** X is the one to prefer: it was marked, and nothing newer was verified. */
const marked = (observation: Observation, x: Color) => (recorded(observation) ?? observation.file) === x;
const serves =
  (proof: Proof) =>
  (observation: Observation, active: Color): ActiveState => ({
    active,
    serves: true,
    marked: recorded(observation) ?? observation.file,
    proof,
    bothRun: runs(observation, getInactiveColor(active)),
    rescue: [],
    wrong: (["link", "file"] as const).filter((place) => observation[place] !== active),
  });
const ROWS: Row[] = [
  ["X serves, marked, Y runs", (s, x, y) => s.nginx === x && s.file === x && runs(s, y), serves("nothing")],
  ["X serves, marked", (s, x) => s.nginx === x && (s.file === x || recorded(s) === x), serves("nothing")],
  [
    "Y serves, of a deploy that was cut off",
    (s, x, y) =>
      s.nginx === y &&
      s.file === x &&
      s.interrupted?.verb === "deploy" &&
      s.interrupted.to === y &&
      !s.interrupted.result,
    (s, _, y) => serves("go back")(s, y),
  ],
  [
    "Y serves, of a rollback that was cut off, or switched to after a failed reload",
    (s, x, y) => s.nginx === y && s.file === x && s.interrupted?.to === y,
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
  for (const observation of every) {
    const [first] = ROWS.flatMap(([name, fits, then]) =>
      COLORS.filter((x) => fits(observation, x, getInactiveColor(x))).map((x) => ({
        name,
        truth: then(observation, x, getInactiveColor(x)),
      })),
    );
    assert.ok(first, `no row for ${JSON.stringify(observation)}`);
    met.add(first.name);
    const idle: Omit<ActiveState, "active"> = {
      serves: false,
      marked: recorded(observation) ?? observation.file,
      proof: "nothing",
      bothRun: COLORS.every((color) => runs(observation, color)),
      rescue: [],
      wrong: [],
    };
    assert.equal(
      resolveActive(observation),
      { ...idle, ...first.truth },
      `${first.name}: ${JSON.stringify(observation)}`,
    );
  }
  assert.is(every.length, 3 * 9 * 4 * 3 * RECORDS.length);
  assert.equal([...met].toSorted(), ROWS.map(([name]) => name).toSorted());
});

test("what serves is never the one that is released to, and neither is the marked one while nobody serves", () => {
  for (const observation of every) {
    const { active, marked } = resolveActive(observation);
    assert.is(active, observation.nginx ?? marked ?? active);
  }
});

test("no color is taken for the active one that was not marked, and of which no full verification is recorded", () => {
  for (const observation of every) {
    const { active, serves, proof } = resolveActive(observation);
    if (serves && proof === "nothing") assert.ok([observation.file, recorded(observation)].includes(active));
  }
});

test("a rollback leaves what serves without proving it, takes back a release, and proves what it only finishes", () => {
  for (const observation of every) {
    const truth = resolveActive(observation);
    const ofRelease =
      observation.interrupted?.verb === "deploy" &&
      observation.interrupted.to === observation.nginx &&
      observation.file !== undefined;
    const wanted: Proof = truth.proof === "nothing" ? "nothing" : ofRelease ? "go back" : "leave";
    assert.is(forRollback(truth, observation.interrupted, false).proof, wanted, JSON.stringify(observation));
    assert.equal(forRollback(truth, observation.interrupted, true), truth);
  }
});
test.run();
