// Accuracy against cost: what no other beats in full ink, the rest dimmed.
const isLower = (key) => QUANTITIES[key].better !== "higher";

// No other is as accurate for less, or more accurate for as little. Bounds take no part.
const frontOf = (points, key) => {
  const able = points.filter((one) => one.readings.acc && one.readings[key] && !isBound(one));
  const sorted = [...able].sort((a, b) => a.readings[key].v - b.readings[key].v || b.readings.acc.v - a.readings.acc.v);
  const front = [];
  for (const one of sorted) if (!front.length || one.readings.acc.v > front[front.length - 1].readings.acc.v) front.push(one);
  return front;
};

const pointLines = (one) => [
  one.full + (one.cell.simulated ? " (simulated)" : ""),
  ...["acc", "acc_change", "tpot_ratio", "tpot", "kv", "hbm"].filter((key) => one.readings[key]).map((key) => readingText(key, one.readings[key])),
  ...(one.merged > 1 ? [] : [plural(one.cell.trials.length, "trial")]),
];

const whiskers = (x, y, one, key, colour) => {
  const acc = one.readings.acc;
  const cost = one.readings[key];
  const at = [x(cost.v), y(acc.v)];
  return s("g", { class: "whisker", "aria-hidden": "true", stroke: colour },
    acc.lo !== undefined && s("line", { x1: at[0], x2: at[0], y1: y(acc.lo), y2: y(acc.hi) }),
    cost.lo !== undefined && s("line", { x1: x(cost.lo), x2: x(cost.hi), y1: at[1], y2: at[1] }));
};

const dot = (x, y, one, key, dimmed) => {
  const lines = () => pointLines(one);
  const hue = one.isBaseline ? "var(--ink)" : tierHue(one);
  return mark(tierShape(one), x(one.readings[key].v), y(one.readings.acc.v), dimmed ? 4 : 5.5, {
    class: dimmed ? "mark dim" : "mark",
    fill: one.isBaseline || isBound(one) ? "var(--paper)" : hue,
    stroke: hue,
    ...reachable(one, lines, !dimmed),
  });
};

const drawPareto = (width) => {
  const key = state.axis;
  const points = state.points.filter((one) => one.readings.acc && one.readings[key]);
  if (!points.length) return h("p", { class: "absent" }, "No cell here has both an accuracy and a cost to set against it.");
  const frame = { left: 52, right: width - 14, top: 34, bottom: (width < 560 ? 320 : 400) - 46 };
  const ends = points.flatMap((one) => [one.readings[key].v, one.readings[key].lo, one.readings[key].hi]).filter((v) => v !== undefined);
  const x = scaleOf(QUANTITIES[key].kind, ends, frame.left, frame.right);
  const y = scoreScale(points.map((one) => one.readings.acc), frame.bottom, frame.top);
  const front = frontOf(points, key);
  const best = winnerOf();
  const bound = bestOf(points.filter((one) => isBound(one) && !one.isBaseline));
  const strong = new Set([...front, ...points.filter((one) => one.isBaseline), best, bound]);
  const weak = points.filter((one) => !strong.has(one));
  const inked = points.filter((one) => strong.has(one));
  const step = front.flatMap((one, n) => {
    const at = [x(one.readings[key].v), y(one.readings.acc.v)];
    return n ? [`H${at[0]}`, `V${at[1]}`] : [`M${at}`];
  });
  const labels = [...inked].sort((a, b) => (b === best) - (a === best)).map((one) => ({
    x: x(one.readings[key].v), y: y(one.readings.acc.v), text: one.label, class: one === best ? "best" : "",
  }));
  return svg(width, frame.bottom + 46, `Accuracy against ${QUANTITIES[key].label}`,
    xAxis(x, QUANTITIES[key].kind, { ...frame, title: lowerIsBetter(QUANTITIES[key].label) }),
    yAxis(y, "score", { ...frame, title: "accuracy ↑ better" }),
    front.length > 1 && s("path", { class: "front", d: [...step, `H${frame.right}`].join("") }),
    weak.length <= 40 && weak.map((one) => s("g", { opacity: 0.28 }, whiskers(x, y, one, key, tierHue(one)))),
    weak.map((one) => dot(x, y, one, key, true)),
    inked.map((one) => whiskers(x, y, one, key, one.isBaseline ? "var(--ink)" : tierHue(one))),
    inked.map((one) => dot(x, y, one, key, false)),
    best && known([best], key).length && s("circle", { class: "ring", cx: x(best.readings[key].v), cy: y(best.readings.acc.v), r: 11 }),
    placeLabels(labels, { left: frame.left, right: width - 2, top: 16, bottom: frame.bottom + 2 }));
};

const paretoNote = () => {
  const front = frontOf(state.points, state.axis);
  const many = state.points.filter((one) => one.readings.acc && one.readings[state.axis]).length;
  const simulated = state.points.some((one) => one.cell.simulated) ? " Simulated points are named so." : "";
  return `${front.length} of ${plural(many, "point")} are on the front; the rest are dimmed. Bars: 95 % Wilson interval of the accuracy; interval or range of the cost, as the tooltip says. Hollow: the dense baseline, and bounds, which are there to compare with; the best of those is named.${simulated}`;
};
