// The data, and its rows: one for each cell and arm.
const DATA = JSON.parse(document.getElementById("data").textContent);
const QUANTITIES = DATA.quantities;

// [value, n, how, lo, hi] as the page uses it.
const unpack = (packed) =>
  packed && { v: packed[0], n: packed[1], how: DATA.hows[packed[2]], lo: packed[3], hi: packed[4] };

const rows = DATA.cells.flatMap((cell, number) =>
  Object.keys(cell.arms).map((arm) => ({
    cell,
    number,
    arm,
    parts: cell.arms[arm],
    isBaseline: arm === cell.baseline,
  })));

// The baseline of a bound is no bound.
const isBound = (row) => Boolean(row.cell.bound) && !row.isBaseline;
const get = (row, key) => unpack((row.parts.m || {})[key]);
const value = (row, key) => ((row.parts.m || {})[key] || [])[0];

const budgetOf = (what) => {
  if (what.budget !== undefined) return whole(what.budget);
  return what.fraction === undefined ? "" : percent(what.fraction);
};

const algoLabel = (row) => {
  if (row.isBaseline) return row.arm;
  const name = row.arm === "dense" ? row.cell.what.algo : row.arm;
  const budget = budgetOf(row.cell.what);
  return `${name}${budget && ` ${budget}`}${isBound(row) ? " (bound)" : ""}`;
};

// The axes on which the rows of a group differ beside algorithm, budget and tier.
const MORE_AXES = ["cache", "partition", "backend", "kernel"];
const differing = (some) =>
  MORE_AXES.filter((axis) => new Set(some.map((row) => row.cell.what[axis])).size > 1);

const fullLabel = (row, axes = []) =>
  [`${algoLabel(row)} on ${row.cell.what.tier}`, ...axes.map((axis) => row.cell.what[axis]).filter(Boolean)].join(", ");

const usable = (row) => row.cell.current && row.cell.valid;
const byGroup = new Map(DATA.groups.map((name, number) => [number, { name, number, rows: [] }]));
for (const row of rows) if (usable(row)) byGroup.get(row.cell.group).rows.push(row);
const timed = (group) => group.rows.some((row) => !row.isBaseline && value(row, "tpot_ratio") !== undefined);
const groups = [...byGroup.values()]
  .filter((group) => group.rows.length)
  // What was timed comes first: it can answer every question.
  .sort((a, b) => timed(b) - timed(a) || b.rows.length - a.rows.length);

const middle = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

// Every cell has its own baseline: of one tier they are one point, the median with the range.
const mergedBaseline = (some) => {
  const readings = {};
  for (const key of Object.keys(QUANTITIES)) {
    const known = some.map((row) => get(row, key)).filter(Boolean);
    if (!known.length) continue;
    const values = known.map((one) => one.v);
    const spread = known.length > 1 && Math.min(...values) < Math.max(...values);
    readings[key] = spread
      ? { v: middle(values), n: known[0].n, lo: Math.min(...values), hi: Math.max(...values), how: `median over the baselines of ${known.length} cells, range shown` }
      : known[0];
  }
  return { ...some[0], readings, merged: some.length };
};

const point = (row) => {
  if (row.readings) return row;
  const readings = {};
  for (const key of Object.keys(row.parts.m || {})) readings[key] = get(row, key);
  return { ...row, readings };
};

const pointsOf = (group) => {
  const baselines = new Map();
  for (const row of group.rows.filter((one) => one.isBaseline)) {
    const key = row.cell.what.tier;
    baselines.set(key, [...(baselines.get(key) || []), row]);
  }
  const axes = differing(group.rows.filter((row) => !row.isBaseline));
  return [
    ...[...baselines.values()].map(mergedBaseline),
    ...group.rows.filter((row) => !row.isBaseline).map(point),
  ].map((one) => ({ ...one, label: algoLabel(one), full: fullLabel(one, one.isBaseline ? [] : axes) }));
};

// Colour and shape by tier, the same in every picture.
const TIERS = [...new Set(rows.map((row) => row.cell.what.tier))].sort();
const SHAPES = ["circle", "square", "triangle", "diamond", "down", "plus"];
const hueOf = (number) => `var(--hue${number % 7})`;
const tierHue = (row) => hueOf(TIERS.indexOf(row.cell.what.tier));
const tierShape = (row) => SHAPES[TIERS.indexOf(row.cell.what.tier) % SHAPES.length];
