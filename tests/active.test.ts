import { test } from "uvu";
import * as assert from "uvu/assert";
import { decide, type Seen, type Truth } from "../lib/active.ts";
import { COLORS, type Color, getInactiveColor } from "../lib/color.ts";
import type { State } from "../lib/docker/container.ts";

const STATES: State[] = ["running", "stopped", "absent"];
const every: Seen[] = [undefined, ...COLORS].flatMap((nginx) =>
  STATES.flatMap((blue) =>
    STATES.flatMap((green) =>
      [undefined, ...COLORS, "third.conf"].flatMap((link) =>
        [undefined, ...COLORS].map((file) => ({ nginx, containers: { blue, green }, link, file })),
      ),
    ),
  ),
);

/** The rows of the table in `decide`'s docstring, for X; the first that fits one of the colours counts. */
type Row = [
  name: string,
  fits: (seen: Seen, x: Color, y: Color) => boolean,
  then: (seen: Seen, x: Color) => Truth,
];
const runs = ({ containers }: Seen, color: Color) => containers[color] === "running";
const serving =
  (bothRun: boolean) =>
  (seen: Seen, x: Color): Truth => ({
    active: x,
    serves: true,
    bothRun,
    rescue: false,
    wrong: (["link", "file"] as const).filter((place) => seen[place] !== x),
  });
const idle =
  (more: Partial<Truth> = {}) =>
  (_: Seen, active: Color): Truth => ({
    active,
    serves: false,
    bothRun: false,
    rescue: false,
    wrong: [],
    ...more,
  });
const none = ({ nginx }: Seen) => nginx === undefined;
const ROWS: Row[] = [
  ["X serves, Y runs", (seen, x, y) => seen.nginx === x && runs(seen, y), serving(true)],
  ["X serves", (seen, x) => seen.nginx === x, serving(false)],
  ["X runs", (seen, x, y) => none(seen) && runs(seen, x) && !runs(seen, y), idle({ rescue: true })],
  [
    "both run, file",
    (seen, x, y) => runs(seen, x) && runs(seen, y) && seen.file === x,
    idle({ bothRun: true }),
  ],
  [
    "both run, link",
    (seen, x, y) => runs(seen, x) && runs(seen, y) && !seen.file && seen.link === x,
    idle({ bothRun: true }),
  ],
  ["none runs, file", (seen, x, y) => !runs(seen, x) && !runs(seen, y) && seen.file === x, idle()],
  [
    "none runs, link",
    (seen, x, y) => !runs(seen, x) && !runs(seen, y) && !seen.file && seen.link === x,
    idle(),
  ],
  [
    "nothing is known",
    (seen, x) => x === "blue" && !seen.file,
    (seen, x) => idle({ bothRun: runs(seen, "blue") && runs(seen, "green") })(seen, x),
  ],
];

test("each of the 324 combinations is one row of the table, and each row is met", () => {
  const met = new Set<string>();
  for (const seen of every) {
    const matches = ROWS.flatMap(([name, fits, then]) =>
      COLORS.filter((x) => fits(seen, x, getInactiveColor(x))).map((x) => ({ name, truth: then(seen, x) })),
    );
    const [first] = matches;
    assert.ok(first, `no row for ${JSON.stringify(seen)}`);
    met.add(first.name);
    assert.equal(decide(seen), first.truth, `${first.name}: ${JSON.stringify(seen)}`);
  }
  assert.is(every.length, 324);
  assert.equal([...met].toSorted(), ROWS.map(([name]) => name).toSorted());
});

test("what serves is never the one that is released to", () => {
  for (const seen of every) {
    if (seen.nginx) assert.is(decide(seen).active, seen.nginx);
  }
});
test.run();
