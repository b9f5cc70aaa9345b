import { test } from "uvu";
import * as assert from "uvu/assert";
import { COLORS, type Color, getInactiveColor } from "../../lib/color.ts";
import type { State } from "../../lib/engine/colors.ts";
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
const OBSERVATIONS: Observation[] = [undefined, ...COLORS].flatMap((nginx) =>
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

/** A row of the table in `resolveActive`'s docstring. The first row that matches, with blue or green as X, applies. */
type Row = [
  name: string,
  matches: (observation: Observation, x: Color, y: Color) => boolean,
  then: (observation: Observation, x: Color, y: Color) => Partial<ActiveState> & Pick<ActiveState, "active">,
];
const runs = ({ containers }: Observation, color: Color) => containers[color] === "running";
const none = ({ nginx }: Observation) => nginx === undefined;
const recorded = ({ interrupted }: Observation) => (interrupted?.verified ? interrupted.to : undefined);
/** X is preferred: it was marked, and no newer verification is recorded. */
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
    "Y serves after an interrupted deploy",
    (s, x, y) =>
      s.nginx === y &&
      s.file === x &&
      s.interrupted?.verb === "deploy" &&
      s.interrupted.to === y &&
      (!s.interrupted.result || s.link !== y),
    (s, _, y) => serves("go back")(s, y),
  ],
  [
    "Y serves after an interrupted rollback, or a failed reload with the link at Y",
    (s, x, y) => s.nginx === y && s.file === x && s.interrupted?.to === y,
    (s, _, y) => serves("verify or go back")(s, y),
  ],
  ["Y serves for no known reason", (s, _, y) => s.nginx === y, (s, _, y) => serves("verify")(s, y)],
  [
    "neither serves, X marked, X runs",
    (s, x) => none(s) && marked(s, x) && runs(s, x),
    (s, x, y) => ({ active: x, rescue: runs(s, y) ? [x, y] : [x] }),
  ],
  [
    "neither serves, X marked, only Y runs",
    (s, x, y) => none(s) && marked(s, x) && runs(s, y),
    (_, x, y) => ({ active: x, rescue: [x, y] }),
  ],
  ["neither runs, X marked", (s, x) => none(s) && marked(s, x), (_, active) => ({ active })],
  [
    "neither marked, only X runs",
    (s, x, y) => none(s) && runs(s, x) && !runs(s, y),
    (_, active) => ({ active, rescue: [active] }),
  ],
  [
    "neither marked, the link points at X",
    (s, x) => none(s) && s.link === x,
    (s, x, y) => ({ active: x, rescue: runs(s, x) ? [x, y] : [] }),
  ],
  [
    "nothing is known",
    (s, x) => none(s) && x === "blue",
    (s, x, y) => ({ active: x, rescue: runs(s, x) ? [x, y] : [] }),
  ],
];

test("every observation matches a row of the table, and every row is used", () => {
  const used = new Set<string>();
  for (const observation of OBSERVATIONS) {
    const [first] = ROWS.flatMap(([name, matches, then]) =>
      COLORS.filter((x) => matches(observation, x, getInactiveColor(x))).map((x) => ({
        name,
        state: then(observation, x, getInactiveColor(x)),
      })),
    );
    assert.ok(first, `no row for ${JSON.stringify(observation)}`);
    used.add(first.name);
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
      { ...idle, ...first.state },
      `${first.name}: ${JSON.stringify(observation)}`,
    );
  }
  assert.is(OBSERVATIONS.length, 3 * 9 * 4 * 3 * RECORDS.length);
  assert.equal([...used].toSorted(), ROWS.map(([name]) => name).toSorted());
});

test("the serving color is always the active one; if neither serves, the marked color is", () => {
  for (const observation of OBSERVATIONS) {
    const { active, marked } = resolveActive(observation);
    assert.is(active, observation.nginx ?? marked ?? active);
  }
});

test("a serving color that was neither marked nor verified in full always needs proof", () => {
  for (const observation of OBSERVATIONS) {
    const { active, serves, proof } = resolveActive(observation);
    if (serves && proof === "nothing") assert.ok([observation.file, recorded(observation)].includes(active));
  }
});

test("a rollback leaves the serving color without proof, undoes an interrupted release, and proves a color only to finish an earlier rollback", () => {
  for (const observation of OBSERVATIONS) {
    const state = resolveActive(observation);
    const isInterruptedRelease =
      observation.interrupted?.verb === "deploy" &&
      observation.interrupted.to === observation.nginx &&
      observation.file !== undefined;
    const expected: Proof =
      state.proof === "nothing" ? "nothing" : isInterruptedRelease ? "go back" : "leave";
    assert.is(
      forRollback(state, observation.interrupted, { finishes: false }).proof,
      expected,
      JSON.stringify(observation),
    );
    assert.equal(forRollback(state, observation.interrupted, { finishes: true }), state);
  }
});

test("a rollback to another image goes back from an unverified color to the marked one first, instead of replacing that one", () => {
  for (const observation of OBSERVATIONS) {
    const state = resolveActive(observation);
    const { proof } = forRollback(state, observation.interrupted, { finishes: false, replaces: true });
    if (state.proof !== "nothing")
      assert.is(proof, state.marked === undefined ? "leave" : "go back", JSON.stringify(observation));
  }
});
test.run();
